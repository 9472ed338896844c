"""Programs as a model writes them for a code interpreter, in `programs/`, each with its result checked.

What a program should find is counted here by other means, or known beforehand.
"""

import collections
import contextlib
import heapq
import io
import itertools
import json
import random
import re
import sqlite3
import wave
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.programs import (
    CATALOGUE,
    CATALOGUE_AVERAGE,
    PROGRAMS,
    attempt,
    csv_of,
    give,
    images,
    number,
    out,
    picture,
    resource,
    rows,
    run,
    sums,
    take,
    taxi_trips,
    tells,
    through_the_sdk,
)
from tests.programs import session as session
from tests.service import Session
from tests.signing import text_of
from tests.waiting import wait_until

_TASK_SECONDS = 120


# Tables and charts


def test_sales_are_summed_and_drawn_as_bars(session: Session) -> None:
    dice = random.Random(1)
    sales = [
        (
            f"2025-{dice.randint(1, 12):02}-{dice.randint(1, 28):02}",
            dice.choice(["north", " North", "SOUTH", "east ", "West"]),
            dice.choice(["", *range(1, 30)]),
            dice.randint(100, 9999) / 100,
        )
        for _ in range(400)
    ]
    give(session, {"sales.csv": csv_of("date,region,units,unit_price", sales)})
    result = run(session, "sales_analysis.py")
    sold = [(date, region.strip().title(), units * price) for date, region, units, price in sales if units != ""]
    by_region = sums((region, revenue) for _, region, revenue in sold)
    by_month = sums((date[:7], revenue) for date, _, revenue in sold)
    best, best_month = max(by_region, key=by_region.__getitem__), max(by_month, key=by_month.__getitem__)
    tells(
        result,
        f"Rows with missing units: {len(sales) - len(sold)}",
        *(f"  {region}: ${by_region[region]:,.2f}" for region in sorted(by_region, key=lambda r: -by_region[r])),
        f"Total revenue: ${sum(by_region.values()):,.2f}",
        f"Best region: {best}",
        f"Best month: {best_month} (${by_month[best_month]:,.2f})",
    )
    (chart,) = images(result)
    assert chart.width == pytest.approx(800, rel=0.05)
    assert chart.height == pytest.approx(500, rel=0.05)
    heights = _bar_heights(chart, (70, 130, 180))
    expected = sorted(by_region.values(), reverse=True)
    assert [height / heights[0] for height in heights] == pytest.approx([e / expected[0] for e in expected], abs=0.02)


def _bar_heights(chart: Image.Image, colour: tuple[int, int, int]) -> list[int]:
    """Of each bar of that colour, from the left."""
    pixels = chart.convert("RGB")
    heights = [sum(pixels.getpixel((x, y)) == colour for y in range(pixels.height)) for x in range(pixels.width)]
    return [max(run) for is_bar, group in itertools.groupby(heights, bool) if is_bar and (run := list(group))]


def test_two_figures_are_two_images_in_order_beside_a_table(session: Session) -> None:
    result = run(session, "correlations.py")
    assert 0.9 < number(result, "Correlation of hours and score:") < 1
    heatmap, boxes = images(result)
    assert heatmap.width / heatmap.height == pytest.approx(1, abs=0.25)
    assert boxes.width / boxes.height == pytest.approx(10 / 4, abs=0.5)
    assert "many hours" in out(result)
    assert "<td>" in resource(result, "text/html")


def test_a_forecast_continues_trend_and_season(session: Session) -> None:
    result = run(session, "forecast.py")
    tells(
        result,
        "Rolling mean, last: 183.0",
        "By year: {2021: 111.0, 2022: 135.0, 2023: 159.0, 2024: 183.0}",
        f"Growth: {183 / 159 - 1:.1%}",
    )
    assert number(result, "Largest error of the forecast:") < 1
    assert picture(take(session, "forecast.png")).size == (900, 400)


def test_duckdb_aggregates_a_csv_file(session: Session) -> None:
    trips = taxi_trips()
    give(session, {"trips.csv": csv_of("zone,distance_km,fare,tip", trips)})
    result = run(session, "trips_duckdb.py")
    paid = [trip for trip in trips if trip[2] > 0]
    found = {row[0]: [float(cell) for cell in row[1:]] for row in rows(result, "Airport", "Centre", "Harbour")}
    income = {zone: round(value, 2) for zone, value in sums((t[0], t[2] + t[3]) for t in paid).items()}
    assert list(found) == sorted(income, key=lambda zone: -income[zone])
    for zone, (count, average, total, median) in found.items():
        fares, distances = [t[2] for t in paid if t[0] == zone], sorted(t[1] for t in paid if t[0] == zone)
        half = (len(distances) - 1) / 2
        assert (count, total) == (len(fares), income[zone])
        assert average == pytest.approx(sum(fares) / len(fares), abs=1e-4)
        assert median == pytest.approx((distances[int(half)] + distances[int(half + 0.5)]) / 2)
    tells(result, "Rows exported: 9")
    assert len(take(session, "top_fares.csv").splitlines()) == 10


def test_polars_reads_lazily_and_groups(session: Session) -> None:
    dice = random.Random(3)
    readings = [
        (f"s{dice.randint(1, 3)}", f"2025-05-{dice.randint(1, 28):02}T12:00:00", dice.randint(-50, 400) / 10, status)
        for status in dice.choices(["ok", "fault"], [9, 1], k=500)
    ]
    give(session, {"sensors.csv": csv_of("sensor,time,temperature,status", readings)})
    result = run(session, "sensors_polars.py")
    good = {
        name: [t for sensor, _, t, status in readings if (sensor, status) == (name, "ok")]
        for name in ("s1", "s2", "s3")
    }
    summary = {each["sensor"]: each for each in json.loads(take(session, "summary.json"))}
    assert list(summary) == ["s1", "s2", "s3"]
    for name, temperatures in good.items():
        assert summary[name]["readings"] == len(temperatures)
        assert summary[name]["mean_c"] == pytest.approx(sum(temperatures) / len(temperatures), abs=1e-4)
        assert summary[name]["max_f"] == pytest.approx(max(temperatures) * 9 / 5 + 32, abs=0.01)
    hottest = max(summary, key=lambda name: summary[name]["max_f"])
    tells(result, *(f"{name}: {len(good[name])} readings, {_sensor(summary[name])}" for name in good))
    tells(result, f"Hottest sensor: {hottest}")


def _sensor(summary: Mapping[str, float]) -> str:
    return f"mean {summary['mean_c']:.4f} C, max {summary['max_f']:.2f} F"


def test_parquet_is_written_filtered_and_partitioned(session: Session) -> None:
    result = run(session, "parquet_dataset.py")
    kept = [n for n in range(100_000) if n % 5 == 2 and n % 4 == 1]
    tells(
        result,
        "Row groups: 4 rows: 100000",
        f"Filtered rows: {len(kept)} sum of ids: {sum(kept)}",
        "Partitions: ['year=2020', 'year=2021', 'year=2022', 'year=2023']",
        f"Sum for 2022: {sum(n * 0.5 for n in range(100_000) if n % 4 == 2)}",
    )
    assert number(result, "CSV is") > 1
    data = take(session, "data.parquet")
    assert (data[:4], data[-4:]) == (b"PAR1", b"PAR1")


def test_200_mb_of_csv_are_made_and_aggregated(session: Session) -> None:
    result = run(session, "big_csv.py")
    assert number(result, "big.csv:") >= 200
    count = 4_700_000
    # Stores and quantities repeat every 28 rows.
    times = [count // 28 + (row < count % 28) for row in range(28)]
    expected = {
        store: sum(times[row] * (row % 7 + 1) for row in range(28) if row % 4 == place)
        for place, store in enumerate(("Berlin", "Lisbon", "Osaka", "Quito"))
    }
    assert number(result, "pandas:") == count
    tells(result, *(f"{store}: {quantity}" for store, quantity in expected.items()), "Both agree: True")
    assert number(result, "Mean price:") == pytest.approx(250.5, abs=1)


def test_names_that_differ_a_little_are_matched(session: Session) -> None:
    result = run(session, "match_names.py")
    tells(result, "Matched 5 of 6")
    assert "Globex International" in resource(result, "text/html")
    matches = take(session, "matches.csv").decode().splitlines()[1:]
    assert [line.split(",")[1] for line in matches] == [
        *("Acme Corporation", "Müller Maschinenbau GmbH", "Globex International", "Initech LLC", "Société Générale"),
        "",
    ]


def test_an_interactive_plotly_chart_is_shown(session: Session) -> None:
    result = run(session, "interactive_chart.py")
    tells(result, "Traces: ['north', 'south']")
    assert "Monthly sales" in take(session, "chart.html").decode()
    assert "Monthly sales" in _page(session, result)


def test_a_bokeh_plot_is_saved_and_shown(session: Session) -> None:
    result = run(session, "bokeh_scatter.py")
    assert "Height and weight" in take(session, "scatter.html").decode()
    assert "Height and weight" in _page(session, result)


def _page(session: Session, result: dict[str, Any]) -> str:
    """The one page that was displayed: in the result, or in the file that it links to."""
    (block,) = result["content"][1:]
    if block["type"] == "resource":
        return resource(result, "text/html")
    assert (block["type"], block["mimeType"]) == ("resource_link", "text/html")
    return take(session, block["uri"].removeprefix("file:///")).decode()


# Documents


def test_a_workbook_keeps_its_formulas_and_chart(session: Session) -> None:
    result = run(session, "excel_round_trip.py")
    tells(
        result,
        "Formula in B7: =SUM(B2:B6)",
        "Formula in D3: =C3-B3",
        "Charts: 1",
        "Planned total: 2150",
        "Actual total: 2272.00",
        "Over budget: Groceries",
    )
    with zipfile.ZipFile(io.BytesIO(take(session, "budget.xlsx"))) as workbook:
        assert "xl/charts/chart1.xml" in workbook.namelist()
        assert b"<f>SUM(B2:B6)</f>" in workbook.read("xl/worksheets/sheet1.xml")


def test_a_pdf_report_is_written_read_again_and_shown(session: Session) -> None:
    result = run(session, "pdf_report.py")
    tells(
        result,
        "Pages: 2",
        "Lines: ['Annual Report 2025']",
        "Images on page 2: 1",
        "Footer: ['Page 2']",
        f"Recomputed total: {125000 + 143500 + 138200 + 171300}",
    )
    data = take(session, "report.pdf")
    assert data.startswith(b"%PDF-1.")
    assert data.rstrip().endswith(b"%%EOF")
    assert picture(take(session, "chart.png")).size == (720, 360)
    (page,) = images(result)
    # A4 at 50 dots in an inch.
    assert page.size == pytest.approx((413, 585), abs=2)


@through_the_sdk
def test_a_word_document_is_written_and_read_again(session: Session) -> None:
    result = run(session, "word_document.py")
    tells(
        result,
        "Headings: ['Meeting Minutes', 'Attendees', 'Action items']",
        "Attendees: ['Ana López', 'Jürgen Groß', '佐藤 花子']",
        "Rows: [['Owner', 'Task', 'Due'], ['Ana', 'Draft budget', '21 March'], ['Jürgen', 'Book venue', '28 March']]",
    )
    with zipfile.ZipFile(io.BytesIO(take(session, "minutes.docx"))) as document:
        assert "佐藤 花子" in document.read("word/document.xml").decode()


def test_slides_have_text_and_a_chart(session: Session) -> None:
    result = run(session, "slides.py")
    tells(
        result,
        "Slide 1: Quarterly Business Review",
        "Slide 2: Highlights",
        "  text: ['Revenue up 12%', 'Churn down to 2.1%', 'Two new markets']",
        "Slide 3: Revenue by month",
        "  chart: ['Jul', 'Aug', 'Sep'] [19.2, 21.4, 16.7]",
        "Slides: 3",
    )
    with zipfile.ZipFile(io.BytesIO(take(session, "review.pptx"))) as slides:
        assert len([name for name in slides.namelist() if re.fullmatch(r"ppt/slides/slide\d+\.xml", name)]) == 3
        assert len([name for name in slides.namelist() if re.fullmatch(r"ppt/charts/chart\d+\.xml", name)]) == 1


@through_the_sdk
def test_a_page_is_made_from_a_template_and_escaped(session: Session) -> None:
    result = run(session, "html_report.py")
    tells(
        result,
        "Title: Price list",
        "Rows: [['Tea & biscuits', '4.50'], ['<b>Bold</b> coffee', '3.25']]",
        "Escaped: True",
        "Total: 7.75",
    )
    assert "<p>As of 04 July 2025</p>" in take(session, "report.html").decode()


def test_products_are_read_from_a_page(session: Session) -> None:
    give(session, {"catalogue.html": CATALOGUE})
    result = run(session, "scrape_catalogue.py")
    tells(
        result,
        "In stock: ['Kettle', 'Café set']",
        CATALOGUE_AVERAGE,
        "Links by XPath: ['/kettle', '/press']",
        "Table: [['Mon', '9-17']]",
    )
    assert [each["name"] for each in json.loads(take(session, "products.json"))] == ["Kettle", "Teapot", "Café set"]


def test_settings_go_through_yaml_xml_ini_toml_and_archives(session: Session) -> None:
    services = "defaults: &defaults\n  restart: always\nservices:\n  - {name: web, replicas: 3, restart: never}\n"
    give(session, {"deploy.yaml": f"{services}  - <<: *defaults\n    name: worker\n    replicas: 5\n"})
    result = run(session, "config_formats.py")
    tells(
        result,
        "Services: ['web', 'worker']",
        "Merged default: always",
        "Replicas: 8",
        "Replicas by XPath: 8",
        'As JSON: {"@name": "web", "replicas": "3"}',
        "Port: 5432",
        "TOML: {'name': 'x', 'versions': [1, 2]}",
        "Zip is fine: True ['README.txt', 'deploy.yaml', 'out/services.xml']",
        "Tar: ['services.xml', 'notes/hello.txt']",
    )
    with zipfile.ZipFile(io.BytesIO(take(session, "bundle.zip"))) as bundle:
        services_element = ET.fromstring(bundle.read("out/services.xml"))
    assert [service.findtext("replicas") for service in services_element] == ["3", "5"]


# Pictures, film, sound


def test_a_picture_is_drawn_filtered_and_shown(session: Session) -> None:
    result = run(session, "image_processing.py")
    tells(
        result,
        "Original: (800, 600) RGB",
        "Centre pixel: (255, 255, 0)",
        # What ITU-R 601-2 gives for yellow.
        f"Gray centre: {round(255 * (0.299 + 0.587))}",
        "Rotated: (600, 800)",
        "Thumbnail: (200, 150)",
    )
    (thumbnail,) = images(result)
    assert thumbnail.size == (200, 150)
    red, green, blue = thumbnail.convert("RGB").getpixel((100, 75))
    assert (red > 240, green > 240, blue < 15) == (True, True, True)
    assert picture(take(session, "original.png")).getpixel((400, 300)) == (255, 255, 0)
    blurred = picture(take(session, "blurred.jpg"))
    assert (blurred.format, blurred.size) == ("JPEG", (800, 600))


def test_opencv_finds_the_shapes_that_were_drawn(session: Session) -> None:
    result = run(session, "opencv_shapes.py")
    tells(result, "Shapes found: {'circle': 4, 'rectangle': 3, 'triangle': 1}", "Edge pixels: True")
    assert picture(take(session, "annotated.png")).size == (600, 400)


def test_scikit_image_counts_cells(session: Session) -> None:
    result = run(session, "count_cells.py")
    tells(result, "Cells: 12")
    assert number(result, "Mean area:") == pytest.approx(3.14159 * 9**2, rel=0.1)
    assert number(result, "Most elongated:") < 0.4


def test_a_qr_code_is_made_and_read(session: Session) -> None:
    result = run(session, "qr_code.py")
    tells(result, "Decoded: https://example.org/ticket?id=48213&name=José", "Same: True")
    side = (number(result, "modules:") + 8) * 8
    assert picture(take(session, "ticket.png")).size == (side, side)


def test_a_video_is_encoded_again(session: Session) -> None:
    result = run(session, "reencode_video.py")
    tells(result, "Video: h264 160x120, 30 frames", "Audio: aac 44100 Hz")
    assert number(result, "Duration:") == pytest.approx(2, abs=0.2)
    assert take(session, "small.mp4")[4:8] == b"ftyp"
    frame = picture(take(session, "frame.png")).convert("RGB")
    assert frame.size == (160, 120)
    # The square's place after one second, and the background.
    assert min(frame.getpixel((75, 60))) > 200
    red, _, blue = frame.getpixel((10, 10))
    assert blue - red > 60


def test_moviepy_joins_cuts_and_writes_clips(session: Session) -> None:
    result = run(session, "edit_clip.py")
    tells(result, "Duration: 3.0 size: [128, 96] fps: 12.0")
    for second, colour in {"0.5": (255, 0, 0), "1.5": (0, 255, 0)}.items():
        found = re.search(rf"Colour at {second} s: \[(\d+), (\d+), (\d+)\]", out(result))
        assert found is not None, out(result)
        assert tuple(map(int, found.groups())) == pytest.approx(colour, abs=20)
    gif = picture(take(session, "short.gif"))
    assert (gif.format, gif.size) == ("GIF", (64, 48))


def test_tones_are_mixed_encoded_and_played(session: Session) -> None:
    result = run(session, "tones.py")
    tells(result, "Mix: 2000 ms, 1 channel, 22050 Hz", "Dominant frequency: 440 Hz")
    assert number(result, "MP3: about") == 2
    with wave.open(io.BytesIO(take(session, "a4.wav"))) as tone:
        assert (tone.getframerate(), tone.getnframes(), tone.getnchannels()) == (22050, 22050, 1)
    (player,) = result["content"][1:]
    assert (player["type"], player["mimeType"]) == ("resource_link", "audio/x-wav")
    assert take(session, player["uri"].removeprefix("file:///")) == take(session, "a4.wav")


# Learning and statistics


def test_a_classifier_learns_irises(session: Session) -> None:
    result = run(session, "iris_classifier.py")
    tells(result, "Training samples: 105, test samples: 45")
    confusion: list[list[int]] = json.loads(out(result).partition("Confusion matrix: ")[2].splitlines()[0])
    assert [sum(row) for row in confusion] == [15, 15, 15]
    accuracy = number(result, "Accuracy:")
    assert accuracy == pytest.approx(sum(confusion[n][n] for n in range(3)) / 45, abs=1e-4)
    assert min(accuracy, number(result, "Cross-validation:")) > 0.85
    assert "Most important feature: petal" in out(result)
    assert len(images(result)) == 1


def test_a_regression_finds_the_coefficients(session: Session) -> None:
    # Each point twice, as far above the plane as below: the fit is the plane itself.
    points = [(dose, 15 + 3 * (dose * step % 5)) for dose in range(1, 11) for step in (1, 2, 3)]
    data = [
        (dose, temperature, 3 + 2 * dose - 1.5 * temperature + sign * (1 + dose % 3))
        for dose, temperature in points
        for sign in (-1, 1)
    ]
    give(session, {"experiment.csv": csv_of("dose,temperature,response", data)})
    result = run(session, "regression.py")
    tells(
        result,
        "Coefficient const: 3.000000",
        "Coefficient dose: 2.000000",
        "Coefficient temperature: -1.500000",
    )
    assert "OLS Regression Results" in out(result)
    mean = sum(response for *_, response in data) / len(data)
    residual = sum((response - (3 + 2 * dose - 1.5 * temperature)) ** 2 for dose, temperature, response in data)
    r_squared = 1 - residual / sum((response - mean) ** 2 for *_, response in data)
    assert number(result, "R-squared: 0") >= 0
    assert f"R-squared: {r_squared:.6f}" in out(result)


def test_boosted_trees_learn_prices(session: Session) -> None:
    result = run(session, "house_prices.py")
    assert 0.97 < float(out(result).partition("R2: ")[2].split()[0]) <= 1
    assert "Features by importance: ['area'" in out(result)
    tells(result, "Same predictions after reload: True")
    assert "learner" in json.loads(take(session, "model.json"))


# Mathematics


def test_scipy_minimises_fits_and_integrates(session: Session) -> None:
    result = run(session, "scientific.py")
    tells(
        result,
        "Minimum at: [1.0, 1.0, 1.0] success: True",
        "Gaussian integral: 1.7724538509",
        "Oscillator after one period: 1.00000",
        "LP optimum: 11.0 at [3.0, 1.0]",
        "t-test significant: True",
        "Peaks: 5",
        f"Spline at 1.5: {1.5**3:.4f}",
        "Determinant: 10.0",
    )
    fitted = [float(each) for each in out(result).partition("Fit: ")[2].splitlines()[0].split()]
    assert fitted == pytest.approx([5, 0.7, 1.2], abs=0.05)


def test_sympy_calculates_with_symbols(session: Session) -> None:
    result = run(session, "calculus.py")
    tells(
        result,
        "Derivative: exp(x)*sin(x)**2 + 2*exp(x)*sin(x)*cos(x)",
        "Integral: sqrt(pi)",
        "Roots: [1, 2, 3]",
        "Limit: 1",
        "Series: 1 - x**2/2 + x**4/24 + O(x**6)",
        "Sum: x*(x + 1)*(2*x + 1)/6",
        "System: {x: 6, y: 4}",
        f"2**200 = {2**200}",
        "Pi: 3.1415926535897932384626433832795028841971693993751",
    )
    assert r"\int" in resource(result, "text/latex")


def test_cvxpy_weighs_a_portfolio(session: Session) -> None:
    result = run(session, "portfolio.py")
    tells(result, "Status: optimal")
    # Uncorrelated: the least variance has weights in inverse proportion to each variance.
    inverse = {"Stocks": 0.20**-2, "Bonds": 0.08**-2, "Gold": 0.15**-2, "Cash": 0.02**-2}
    for name, value in inverse.items():
        assert number(result, f"{name}:") == pytest.approx(value / sum(inverse.values()), abs=2e-3)
    assert number(result, "Volatility:") == pytest.approx(sum(inverse.values()) ** -0.5, abs=1e-4)
    assert number(result, "Return reached:") == pytest.approx(0.05, abs=1e-3)
    assert "Target of 50 %: infeasible" in out(result)


def test_an_integer_programme_finds_the_best_plan(session: Session) -> None:
    products = {
        "chair": {"profit": 45, "wood": 5, "hours": 3, "max": 20},
        "table": {"profit": 80, "wood": 20, "hours": 5, "max": 12},
        "shelf": {"profit": 62, "wood": 13, "hours": 4, "max": 15},
    }
    available = {"wood": 167, "hours": 71}
    give(session, {"plan.json": json.dumps({"products": products, "available": available})})
    result = run(session, "production_plan.py")
    tells(result, "Status: Optimal")

    def worth(made: tuple[int, ...], of: str) -> int:
        return sum(count * product[of] for count, product in zip(made, products.values(), strict=True))

    plans = itertools.product(*(range(product["max"] + 1) for product in products.values()))
    possible = {made for made in plans if all(worth(made, of) <= most for of, most in available.items())}
    best = max(worth(made, "profit") for made in possible)
    found = tuple(int(number(result, f"Make {name}:")) for name in products)
    assert number(result, "Maximum profit:") == best
    assert found in possible
    assert worth(found, "profit") == best


def test_or_tools_places_queens(session: Session) -> None:
    result = run(session, "queens.py")
    tells(result, *(f"{n} queens: {count} solutions (OPTIMAL)" for n, count in {4: 2, 6: 4, 8: 92}.items()))
    board = [line.split() for line in out(result).splitlines()[-8:]]
    queens = [(row, column) for row in range(8) for column in range(8) if board[row][column] == "Q"]
    lines = [(row, column, row + column, row - column) for row, column in queens]
    assert [len(set(places)) for places in zip(*lines, strict=True)] == [8, 8, 8, 8]


def test_z3_solves_a_puzzle(session: Session) -> None:
    tells(run(session, "send_more_money.py"), "SEND = 9567", "MORE = 1085", "MONEY = 10652", "Another solution: unsat")


def test_networkx_finds_the_shortest_route(session: Session) -> None:
    dice = random.Random(4)
    pairs = {(n, n + 1) for n in range(19)} | {tuple(sorted(dice.sample(range(20), 2))) for _ in range(25)}
    roads = [(f"T{a}", f"T{b}", dice.randint(5, 90)) for a, b in sorted(pairs)]
    give(session, {"roads.csv": csv_of("from,to,km", roads)})
    result = run(session, "routes.py")
    tells(result, f"20 towns, {len(roads)} roads, connected: True")
    length = {frozenset((a, b)): km for a, b, km in roads}
    route = out(result).partition("Shortest route: ")[2].splitlines()[0].split(" -> ")
    assert (route[0], route[-1]) == ("T0", "T19")
    shortest = _shortest(length, "T0", "T19")
    assert sum(length[frozenset(pair)] for pair in itertools.pairwise(route)) == shortest
    assert number(result, "Distance:") == shortest
    assert number(result, "Spanning tree:") == _spanning_tree(length)
    assert len(images(result)) == 1


def _shortest(length: Mapping[frozenset[str], int], start: str, end: str) -> int:
    """Dijkstra's."""
    reached: dict[str, int] = {}
    waiting = [(0, start)]
    while waiting:
        distance, town = heapq.heappop(waiting)
        if town not in reached:
            reached[town] = distance
            near = ((km, next(iter(road - {town}))) for road, km in length.items() if town in road)
            for km, other in near:
                heapq.heappush(waiting, (distance + km, other))
    return reached[end]


def _spanning_tree(length: Mapping[frozenset[str], int]) -> int:
    """Kruskal's."""
    group = {town: {town} for road in length for town in road}
    total = 0
    for road in sorted(length, key=length.__getitem__):
        a, b = (group[town] for town in road)
        if a is not b:
            total += length[road]
            a |= b
            for town in b:
                group[town] = a
    return total


def test_darts_thrown_in_several_processes_give_pi(session: Session) -> None:
    result = run(session, "monte_carlo.py")
    dice = [random.Random(seed) for seed in range(8)]
    inside = sum(each.random() ** 2 + each.random() ** 2 <= 1 for each in dice for _ in range(100_000))
    tells(
        result,
        f"Darts inside: {inside}",
        f"Pi is about {4 * inside / 800_000:.4f}",
        "In other processes: True",
        "Squares: [0, 1, 4, 9, 16]",
    )


def test_numba_compiles_a_sieve(session: Session) -> None:
    sieve = bytearray([1]) * 5_000_001
    sieve[:2] = b"\0\0"
    for n in range(2, 2237):
        if sieve[n]:
            sieve[n * n :: n] = bytes(len(range(n * n, len(sieve), n)))
    tells(run(session, "primes_numba.py"), f"Primes below 5 million: {sum(sieve)}", f"Largest: {sieve.rfind(1)}")


# Databases, models of data, services


@through_the_sdk
def test_sqlite_keeps_orders_in_a_file(session: Session, tmp_path: Path) -> None:
    dice = random.Random(5)
    orders = [
        (dice.randint(1, 3), dice.randint(100, 90000) / 100, f"2025-01-{dice.randint(1, 28):02}") for _ in range(60)
    ]
    give(session, {"orders.csv": csv_of("customer_id,amount,placed_on", orders)})
    result = run(session, "orders_sqlite.py")
    spent = sums((str(customer), amount) for customer, amount, _ in orders)
    top = {"1": "Alice", "2": "Bob", "3": "Chloé"}[max(spent, key=spent.__getitem__)]
    tells(result, "Inserted 60 orders", "Rejected: CHECK constraint failed: amount >= 0", f"Top customer: {top}")
    assert number(result, "Grand total:") == pytest.approx(sum(spent.values()), abs=0.005)
    (tmp_path / "shop.db").write_bytes(take(session, "shop.db"))
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        stored = database.execute("SELECT customer_id, amount, placed_on FROM orders ORDER BY id").fetchall()
    assert stored == orders


def test_sqlalchemy_maps_objects(session: Session) -> None:
    tells(
        run(session, "library_orm.py"),
        "Stanisław Lem: 1 book(s), first in 1961",
        "Ursula K. Le Guin: 2 book(s), first in 1974",
        "Books left: ['Solaris']",
    )


def test_records_are_checked_against_a_json_schema(session: Session) -> None:
    people = [
        {"name": "Ana", "age": 30, "tags": ["a", "b"]},
        {"name": "", "age": 200},
        {"age": 5.5, "extra": 1},
        {"name": "Bo", "age": 1, "address": {"zip": "123"}},
        {"name": "Cy", "age": 80, "email": "cy", "tags": ["x", "x"]},
    ]
    give(session, {"people.json": json.dumps(people)})
    result = run(session, "validate_people.py")
    assert sorted(out(result).splitlines()) == sorted(
        [
            "✅ Record 0: OK",
            "❌ Record 1: name: minLength",
            "❌ Record 1: age: maximum",
            "❌ Record 2: (root): additionalProperties",
            "❌ Record 2: (root): required",
            "❌ Record 2: age: type",
            "❌ Record 3: address: required",
            "❌ Record 3: address/zip: pattern",
            "❌ Record 4: email: format",
            "❌ Record 4: tags: uniqueItems",
            "Valid records: 1 of 5",
        ]
    )


def test_pydantic_says_which_fields_are_wrong(session: Session) -> None:
    tells(
        run(session, "booking_models.py"),
        "Total: 400.0",
        "Invalid: guest.name string_too_short",
        "Invalid: guest.email value_error",
        "Invalid: room enum",
        "Invalid: rate greater_than",
        "Value error, departure must be after arrival",
    )


def test_a_web_service_answers_inside_the_sandbox(session: Session) -> None:
    tells(
        run(session, "todo_service.py"),
        "201 {'done': False, 'id': 1, 'title': 'write code'}",
        "201 {'done': False, 'id': 2, 'title': 'test it'}",
        "Patch: True",
        "Missing: 404",
        "Open: ['test it']",
        "Stopped: True",
    )


# Text and time


def test_a_text_s_words_are_counted_and_stemmed(session: Session) -> None:
    text = (
        "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, "
        "it was the epoch of belief, it was the epoch of incredulity, it was the season of Light."
    )
    give(session, {"text.txt": text})
    result = run(session, "word_statistics.py")
    words = re.findall(r"[a-z']+", text.lower())
    content = [word for word in words if word not in {"the", "a", "of", "and", "to", "in", "it", "was"}]
    tells(
        result,
        f"Words: {len(words)} distinct: {len(set(words))}",
        f"Most common: {collections.Counter(words).most_common(3)}",
        f"Bigram: {collections.Counter(itertools.pairwise(words)).most_common(1)[0]}",
        "Stems: ['run', 'fli', 'happili', 'gener']",
        "German: haus",
        "Distance: 5",
        """Tokens: ['They', "'ll", 'save', '$', '3.88', ',', 'wo', "n't", 'they', '?']""",
        "Stop words not available, using a short list",
        f"Content words: {len(content)}",
    )


def test_an_access_log_is_counted_by_regular_expressions(session: Session) -> None:
    dice = random.Random(6)
    # address, hour, page, status, size
    hits = [
        (
            f"10.0.0.{dice.randint(1, 6)}",
            dice.choice([8, 9, 9, 9, 17]),
            dice.choice(["/", "/", "/", "/login", "/login", "/about"]),
            dice.choice([200, 200, 200, 304, 404, 500, 503]),
            dice.randint(200, 5000),
        )
        for _ in range(500)
    ]
    lines = [
        f'{ip} - - [12/May/2025:{hour:02}:15:59 +0200] "GET {page} HTTP/1.1" {status} {"-" if status == 304 else size}'
        for ip, hour, page, status, size in hits
    ]
    lines[100:100] = ["", "garbage", lines[0][:40]]
    give(session, {"access.log": "\n".join(lines) + "\n"})
    sent = sums((ip, size) for ip, _, _, status, size in hits if status != 304)
    heaviest = max(sent, key=sent.__getitem__)
    tells(
        run(session, "access_log.py"),
        "Requests: 500",
        "Malformed lines: 3",
        *(f"  {page}: {n}" for page, n in collections.Counter(hit[2] for hit in hits).most_common()),
        f"Server errors: {sum(hit[3] >= 500 for hit in hits)}",
        f"Heaviest client: {heaviest} with {int(sent[heaviest])} bytes",
        "Busiest hour: 9",
    )


def test_times_are_told_in_other_zones(session: Session) -> None:
    tells(
        run(session, "time_zones.py"),
        "Europe/London: 2025-03-28 19:30 GMT",
        "Asia/Kolkata: 2025-03-29 01:00 IST",
        "Australia/Sydney: 2025-03-29 06:30 AEDT",
        "Two hours later: 2025-03-30T03:30:00+02:00",
        "Offset changed by: 1:00:00",
        "Ambiguous: 2:00:00 1:00:00",
        "Pandas: ['29 13:00', '30 14:00', '31 14:00']",
        "pytz: 2024-12-31T15:00:00+00:00",
        "Zones known: True",
    )


# How a model works: awaiting, mistakes, tests, tasks, no network


def test_coroutines_run_together(session: Session) -> None:
    tells(
        run(session, "gather.py"),
        "Results: [0, 1, 4, 9, 16, 25, 36, 'ValueError: page 7 is broken', 64]",
        "At most at once: 3",
        "Consumed: [0, 1, 2, 3, 4]",
        "Timed out as expected",
    )


@through_the_sdk
def test_a_mistake_is_told_and_mended_in_the_next_call(session: Session) -> None:
    mistake = attempt(session, "cohort_mistake.py")
    assert mistake["isError"] is True
    assert out(mistake) == "Computing cohorts..."
    traceback = mistake["structuredContent"]["stderr"]
    assert re.search(r'-+> 11 users\["month"\] = users\["signup"\]\.dt\.to_period\("M"\)', traceback)
    assert traceback.splitlines()[-1] == "AttributeError: Can only use .dt accessor with datetimelike values"
    assert traceback in text_of(mistake)
    assert out(run(session, "cohort_mended.py")) == "{'2025-01': 19.75, '2025-02': 30.0}"


def test_a_module_is_written_and_its_tests_run(session: Session) -> None:
    assert out(run(session, "write_module.py")) == "Writing text_tools.py"
    result = run(session, "check_module.py")
    assert "AssertionError: 'XXXX' != 'XL'" in out(result)
    assert out(result).splitlines()[-1] == "FAILED (failures=1)"
    mended = take(session, "text_tools.py").decode().replace('((10, "X")', '((40, "XL"), (10, "X")')
    give(session, {"text_tools.py": mended})
    tested = session.sh("python -m unittest test_text_tools 2>&1")
    assert tested["isError"] is False
    assert out(tested).splitlines()[-1] == "OK"


@through_the_sdk
def test_a_training_script_runs_as_a_task_and_tells_how_far_it_is(session: Session) -> None:
    give(session, {"train.py": (PROGRAMS / "train.py").read_text()})
    task_id = session.invoke("startCommandExecution", command="python train.py")["structuredContent"]["taskId"]

    def stands() -> dict[str, Any]:
        return session.invoke("getTask", taskId=task_id)["structuredContent"]

    wait_until(lambda: "epoch 100" in stands()["stdout"], "the first epochs", _TASK_SECONDS)
    assert stands()["taskStatus"] == "working"
    give(session, {"continue": ""})
    wait_until(lambda: stands()["taskStatus"] != "working", "its end", _TASK_SECONDS)
    ended = stands()
    assert (ended["taskStatus"], ended["exitCode"]) == ("completed", 0)
    assert [line.split()[1] for line in ended["stdout"].splitlines()] == ["100", "200", "300"]
    assert ended["stderr"] == "warning: no validation set given\n"
    assert json.loads(take(session, "weights.json")) == pytest.approx({"w": 4, "b": 3}, abs=1e-3)


def test_python_fails_clearly_where_there_is_no_network(session: Session) -> None:
    result = attempt(session, "weather_offline.py")
    assert result["isError"] is True
    lines = ["requests could not connect", "httpx could not connect"]
    assert out(result).splitlines() == [*lines, *lines, "No DNS"]
    assert "URLError: <urlopen error" in result["structuredContent"]["stderr"]
