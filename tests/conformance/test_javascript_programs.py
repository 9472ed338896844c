"""JavaScript and TypeScript as a model writes them for a code interpreter, each with its result checked."""

import base64
import collections
import hmac
import json
import re
import uuid
from hashlib import sha256

import pytest

from tests.programs import (
    CATALOGUE,
    CATALOGUE_AVERAGE,
    attempt,
    csv_of,
    give,
    number,
    out,
    run,
    shop_orders,
    sums,
    take,
    taxi_trips,
    tells,
    through_the_sdk,
)
from tests.programs import session as session
from tests.service import Session


def test_lodash_groups_orders_on_nodejs(session: Session) -> None:
    orders = shop_orders()
    give(session, {"orders.json": json.dumps(orders)})
    result = run(session, "lodash_orders.js", runtime="nodejs")
    spent = sums((order["customer"], order["total"]) for order in orders if order["status"] == "paid")
    ranking = sorted(spent, key=lambda name: -spent[name])
    tells(
        result,
        "Loaded 80 orders",
        *(f"{name}: {spent[name]:.2f}" for name in ranking),
        f"Best customer: {ranking[0]}",
        "[ [ 1, 2, 3 ], [ 4, 5, 6 ], [ 7 ] ]",
    )
    assert json.loads(take(session, "customers.json")) == pytest.approx({name: round(spent[name], 2) for name in spent})


@through_the_sdk
def test_lodash_is_imported_by_deno(session: Session) -> None:
    result = run(session, "grades.js")
    tells(result, "Ada: 91.67", "Grace: 88.33", "Linus: 71.67", "Passed: Ada, Grace")
    assert result["structuredContent"]["stderr"] == "Failed: Linus"
    assert "83.890" in out(result).splitlines()[-1]
    averages = json.loads(take(session, "averages.json"))
    assert averages["Grace"] == {"name": "Grace", "average": 88.33}


def test_identifiers_and_digests_are_made_on_nodejs(session: Session) -> None:
    tells(
        run(session, "identifiers.js", runtime="nodejs"),
        f"v5: {uuid.uuid5(uuid.NAMESPACE_DNS, 'example.com')}",
        "Unique: 1000",
        "All valid: true",
        f"SHA-256: {sha256(b'fixture').hexdigest()}",
        f"HMAC: {base64.b64encode(hmac.digest(b'key', b'message', 'sha256')).decode()}",
    )


def test_axios_fails_clearly_where_there_is_no_network(session: Session) -> None:
    result = attempt(session, "fetch_rates.js", runtime="nodejs")
    assert result["isError"] is True
    assert out(result).splitlines() == ["Using cached rates: EUR, USD, GBP", "100 EUR = 108.00 USD"]
    errors = result["structuredContent"]["stderr"]
    assert re.match(r"Request failed: (EAI_AGAIN|ENOTFOUND)\n", errors)
    assert "AxiosError" in errors


@pytest.mark.parametrize("session", ["boto3", "sdk"], indirect=True)
def test_cheerio_reads_a_page_in_typescript(session: Session) -> None:
    give(session, {"catalogue.html": CATALOGUE})
    result = run(session, "catalogue.ts")
    tells(result, "Products: 3", CATALOGUE_AVERAGE, "In stock: Kettle, Café set")
    assert "Kettle" in out(result).partition("In stock")[2].partition("\n")[2]
    products = json.loads(take(session, "products.json"))
    assert [(each["id"], each["price"], each["inStock"]) for each in products] == [
        (1, 39.9, True),
        (2, 24.5, False),
        (3, 1055, True),
    ]


def test_zod_checks_records_in_typescript_on_nodejs(session: Session) -> None:
    signups = [
        {"username": "ada_l", "age": 36, "email": "ada@mail.org", "plan": "pro"},
        {"username": "x", "age": 17, "email": "ada@mail.org"},
        {"username": "grace", "age": 50, "email": "grace@mail.org"},
        {"username": "Bad Name", "age": "20", "email": "nobody", "plan": "gold"},
        "no record",
    ]
    give(session, {"signups.json": json.dumps(signups)})
    tells(
        run(session, "signups.ts", runtime="nodejs"),
        "Record 0: ok",
        "Record 1: invalid age, username",
        "Record 2: ok",
        "Record 3: invalid age, email, plan, username",
        "Record 4: invalid (root)",
        "Accepted: 2 { pro: 1, free: 1 }",
    )


def test_typescript_classes_live_on_in_the_next_call(session: Session) -> None:
    assert out(run(session, "inventory.ts")) == "Items: 2, value: 65"
    report = "1. removed 4 of SKU-1\n2. refused SKU-2"
    tells(
        run(session, "inventory_next.ts"),
        "true false",
        "Value now: 55",
        f"Digest: {sha256(report.encode()).hexdigest()}",
    )
    assert take(session, "report.txt").decode() == report


def test_lines_of_a_file_are_streamed_on_nodejs(session: Session) -> None:
    trips = taxi_trips()
    give(session, {"trips.csv": csv_of("zone,distance_km,fare,tip", trips)})
    result = run(session, "read_lines.js", runtime="nodejs")
    counts, fares = collections.Counter(trip[0] for trip in trips), sums((trip[0], trip[2]) for trip in trips)
    tells(result, *(f"{zone}: {counts[zone]} trips, {fares[zone]:.2f} in fares" for zone in sorted(counts)))
    written = take(session, "zones.csv")
    assert written.decode() == csv_of("zone,trips", sorted(counts.items()))
    assert number(result, "Written:") == len(written)


def test_a_service_counts_on_nodejs(session: Session) -> None:
    result = run(session, "json_service.js", runtime="nodejs")
    tells(result, "{ name: 'hits', value: 10 }", "Unknown: 404", "Closed")
