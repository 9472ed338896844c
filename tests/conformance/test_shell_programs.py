"""Shell commands as a model writes them for a code interpreter, in `programs/`, each with its result checked."""

import collections
import json
import random

from tests.programs import csv_of, give, number, out, picture, rows, run, shop_orders, sums, take, tells
from tests.programs import session as session
from tests.service import Session


def test_pip_lists_what_can_be_imported(session: Session) -> None:
    result = run(session, "pip_list.sh")
    assert out(result).startswith("Python: Python 3.")
    assert number(result, "Packages:") > 150
    names = ("numpy", "pandas", "scikit-learn", "openpyxl", "duckdb", "polars")
    tells(result, *(f"{name} ok" for name in names))


def test_git_keeps_merges_and_clones_a_project(session: Session) -> None:
    tells(
        run(session, "git_history.sh"),
        "Add calculator",
        "Add multiplication",
        "Add readme",
        "Merge branch 'feature'",
        "commits: 4",
        " 1 file changed, 4 insertions(+)",
        "6 * 7 = 42",
    )


def test_orders_go_through_a_pipeline_of_jq_awk_and_sed(session: Session) -> None:
    orders = shop_orders()
    give(session, {"orders.json": json.dumps(orders)})
    paid = [order for order in orders if order["status"] == "paid"]
    spent = sums((order["customer"], order["total"]) for order in paid)
    counts = collections.Counter(order["customer"] for order in paid)
    result = run(session, "orders_pipeline.sh")
    tells(
        result,
        "Orders: 80",
        f"Paid: {len(paid)}",
        "By customer:",
        *(f"{name} {spent[name]:.2f} {counts[name]}" for name in sorted(spent, key=lambda name: -spent[name])),
    )
    assert "First: ADA," in out(result)
    totals = sums((order["customer"], order["total"]) for order in orders)
    assert json.loads(out(result).splitlines()[-1]) == {name: round(value * 100) for name, value in totals.items()}


def test_files_go_into_archives_and_out_again(session: Session) -> None:
    tells(
        run(session, "archive.sh"),
        "Files in tar: 22",
        "Files in zip: 22",
        "Archives agree",
        "Parts join to the same file",
        "10",
    )


def test_the_sqlite_command_imports_a_csv_file(session: Session) -> None:
    dice = random.Random(8)
    items = [(f"A{n}", dice.choice(["tools", "garden"]), dice.choice([0, 3, 50]) + n * (n % 4 > 0)) for n in range(30)]
    give(session, {"inventory.csv": csv_of("sku,category,stock", items)})
    result = run(session, "sqlite_cli.sh")
    for category in ("garden", "tools"):
        stock = [item[2] for item in items if item[1] == category]
        assert rows(result, category) == [[category, str(len(stock)), str(sum(stock))]]
    tells(result, f"Out of stock: {sum(item[2] == 0 for item in items)}")
    top = json.loads(out(result).splitlines()[-1])
    assert [item["stock"] for item in top] == sorted((item[2] for item in items), reverse=True)[:2]


def test_ffmpeg_cuts_pictures_and_a_film_from_a_film(session: Session) -> None:
    tells(run(session, "thumbnails.sh"), "3", "sheet: 240x60 PNG", "vp8,320,240")
    assert picture(take(session, "thumb_1.png")).size == (80, 60)
