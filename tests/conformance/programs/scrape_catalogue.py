import re
import pandas as pd
from bs4 import BeautifulSoup
from io import StringIO
from lxml import html as lxml_html

with open("catalogue.html", encoding="utf-8") as f:
    page = f.read()

soup = BeautifulSoup(page, "lxml")
products = []
for card in soup.select("div.product"):
    price = re.sub(r"[^\d.]", "", card.select_one(".price").text)
    products.append(
        {
            "id": int(card["data-id"]),
            "name": card.h2.get_text(strip=True),
            "price": float(price),
            "in_stock": "sold-out" not in card["class"],
            "link": card.a["href"] if card.a else None,
        }
    )
df = pd.DataFrame(products)
print(df)
print("In stock:", df[df["in_stock"]]["name"].tolist())
print(f"Average price: {df['price'].mean():.2f}")

tree = lxml_html.fromstring(page)
print("Links by XPath:", tree.xpath("//div[contains(@class, 'product')]//a/@href"))
tables = pd.read_html(StringIO(page))
print("Table:", tables[0].values.tolist())
df.to_json("products.json", orient="records", force_ascii=False)
