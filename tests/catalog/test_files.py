"""Promise: a catalog file in Python, YAML or JSON says the same; a wrong one is refused with file,
line and the path of the field."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from textwrap import dedent

import pytest

from sidecar.catalog.files import CatalogFileError, load_catalog

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "chat.py"

PYTHON = """\
from sidecar.catalog.builders import feature, product, feature_item, priced_feature_item, price_item

messages = feature(id="messages", name="Messages", type="single_use")
credits = feature(
    id="credits", name="Credits", type="credit_system",
    credit_schema=[{"metered_feature_id": messages.id, "credit_cost": 0.1}],
)
pro = product(
    id="pro", name="Pro", group="main",
    items=[
        price_item(price=20, interval="month"),
        feature_item(feature_id=messages, included_usage=0.5, interval="month"),
        priced_feature_item(
            feature_id=credits.id, price=5, billing_units=100, usage_model="prepaid",
        ),
    ],
)
"""

YAML = """\
features:
  - id: messages
    name: Messages
    type: single_use
  - id: credits
    name: Credits
    type: credit_system
    credit_schema:
      - metered_feature_id: messages
        credit_cost: 0.1
plans:
  pro:
    name: Pro
    group: main
    items:
      - price: 20
        interval: month
      - feature_id: messages
        included_usage: 0.5
        interval: month
      - feature_id: credits
        price: 5
        billing_units: 100
        usage_model: prepaid
"""

JSON = json.dumps(
    {
        "features": [
            {"id": "messages", "name": "Messages", "type": "single_use"},
            {"id": "credits", "name": "Credits", "type": "credit_system", "credit_schema": [{"metered_feature_id": "messages", "credit_cost": 0.1}]},
        ],
        "products": [
            {"id": "pro", "name": "Pro", "group": "main", "items": [
                {"price": 20, "interval": "month"},
                {"feature_id": "messages", "included_usage": 0.5, "interval": "month"},
                {"feature_id": "credits", "price": 5, "billing_units": 100, "usage_model": "prepaid"},
            ]},
        ],
    },
    indent="\t",
)


def write(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def problems(tmp_path: Path, name: str, text: str) -> list[tuple[int, str]]:
    path = write(tmp_path, name, text)
    with pytest.raises(CatalogFileError) as error:
        load_catalog(path)
    assert all(problem.file == str(path) for problem in error.value.problems)
    assert str(error.value).startswith(str(path))
    return [(problem.line, problem.path) for problem in error.value.problems]


def test_python_yaml_and_json_say_the_same(tmp_path: Path) -> None:
    python, yaml, json_ = (
        load_catalog(write(tmp_path, *file)) for file in (("c.py", PYTHON), ("c.yaml", YAML), ("c.json", JSON))
    )
    assert python.features == yaml.features == json_.features
    assert python.plans == yaml.plans == json_.plans
    assert python.features[1].credit_schema == (("messages", Decimal("0.1")),)
    assert python.plans[0].items[1].included_usage == Decimal("0.5")


def test_what_a_python_file_prints_is_not_the_commands_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`serve` reads JSON from the process that loads the file."""
    load_catalog(write(tmp_path, "c.py", "print('hello')\n" + PYTHON))
    assert capsys.readouterr() == ("", "hello\n")


def test_the_example_loads() -> None:
    example = load_catalog(EXAMPLE)
    assert {plan.id for plan in example.plans} >= {"free", "top_up", "pro", "pay_as_you_go"}


def test_a_wrong_yaml_field_is_named_with_its_line(tmp_path: Path) -> None:
    wrong = YAML.replace("included_usage: 0.5\n        interval: month", "included_usage: 0.5\n        interval: moon")
    assert problems(tmp_path, "c.yaml", wrong) == [(20, "plans.pro.items[1].interval")]


def test_a_field_left_out_has_the_line_of_what_should_hold_it(tmp_path: Path) -> None:
    wrong = YAML.replace("        included_usage: 0.5\n", "")
    assert problems(tmp_path, "c.yml", wrong) == [(18, "plans.pro.items[1].included_usage")]


def test_a_wrong_json_field_is_named_with_its_line(tmp_path: Path) -> None:
    wrong = JSON.replace('"price": 5', '"price": "5"')
    line = next(i for i, text in enumerate(wrong.splitlines(), 1) if '"price": "5"' in text)
    assert problems(tmp_path, "c.json", wrong) == [(line, "products.pro.items[2].price")]


def test_a_wrong_python_field_is_named_with_the_line_of_its_builder(tmp_path: Path) -> None:
    wrong = PYTHON.replace('price=5, billing_units=100, usage_model="prepaid"', 'price=5, interval="moon"')
    assert problems(tmp_path, "c.py", wrong) == [(13, "plans.pro.items[2].interval")]
    wrong = PYTHON.replace('"credit_cost": 0.1', '"credit_cost": -1')
    assert problems(tmp_path, "c.py", wrong) == [(4, "features.credits.credit_schema[0].credit_cost")]


def test_an_unknown_field_is_refused_with_the_nearest_known(tmp_path: Path) -> None:
    path = write(tmp_path, "c.py", PYTHON.replace("included_usage", "includd_usage"))
    with pytest.raises(CatalogFileError, match="did you mean 'included_usage'"):
        load_catalog(path)


def test_an_error_while_running_python_is_named_with_its_line(tmp_path: Path) -> None:
    assert problems(tmp_path, "c.py", "\n\nx = 1 / 0\n") == [(3, "")]
    assert problems(tmp_path, "c.py", "\nx = (\n") == [(2, "")]
    assert problems(tmp_path, "c.py", "\nraise SystemExit(3)\n") == [(2, "")]
    assert problems(tmp_path, "c.py", "\nfrom nowhere_at_all import x\n") == [(2, "")]
    assert problems(tmp_path, "c.py", "x = 1\n") == [(0, "")]


@pytest.mark.parametrize(
    ("name", "text", "line", "path"),
    [
        ("c.json", '{\n "features": [,]\n}', 2, ""),
        ("c.json", '{\n "plans": [],\n "plans": []}', 3, "plans"),
        ("c.yaml", "features:\n  - id: [\n", 3, ""),
        ("c.yaml", "- id: a\n", 1, ""),
        ("c.yaml", "fetures: []\n", 1, "fetures"),
        ("c.yaml", "features: 7\n", 1, "features"),
        ("c.yaml", "features:\n  - id: a\n    id: b\n", 3, "features.b.id"),
        ("c.yaml", "features:\n  - id: a\n    type: single_use\n    precision: 0o7\n", 4, "features.a.precision"),
        ("c.yaml", "features:\n  - 7\n", 2, "features[0]"),
        ("c.yaml", "features:\n  - &a\n    id: a\n    display: *a\n", 3, "features.a"),
        ("c.toml", "", 0, ""),
    ],
)
def test_a_file_of_the_wrong_shape_is_refused(tmp_path: Path, name: str, text: str, line: int, path: str) -> None:
    assert problems(tmp_path, name, text)[0] == (line, path)


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogFileError, match="cannot be read"):
        load_catalog(tmp_path / "c.yaml")


def test_a_file_stands_alone_and_names_nothing_twice(tmp_path: Path) -> None:
    unknown = dedent("""\
        features:
          - {id: a, type: single_use}
          - {id: a, type: boolean}
          - id: c
            type: credit_system
            credit_schema:
              - {metered_feature_id: a, credit_cost: 1}
              - {metered_feature_id: b, credit_cost: 1}
    """)
    assert problems(tmp_path, "c.yaml", unknown) == [
        (3, "features.a.id"), (8, "features.c.credit_schema[1].metered_feature_id"),
    ]
    plans = dedent("""\
        plans:
          - id: p
            name: P
            items:
              - {feature_id: nope, included_usage: 1}
    """)
    assert problems(tmp_path, "c.yaml", plans) == [(5, "plans.p.items[0].feature_id")]
