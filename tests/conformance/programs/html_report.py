from datetime import date
from bs4 import BeautifulSoup
from jinja2 import Environment, DictLoader, select_autoescape

templates = {
    "base.html": "<html><head><title>{% block title %}{% endblock %}</title></head><body>{% block body %}{% endblock %}</body></html>",
    "report.html": """{% extends "base.html" %}
{% block title %}{{ title }}{% endblock %}
{% block body %}
<h1>{{ title }}</h1>
<p>As of {{ day.strftime('%d %B %Y') }}</p>
<table>
  <tr><th>Item</th><th>Price</th></tr>
{%- for item in items if item.price > 0 %}
  <tr class="{{ loop.cycle('odd', 'even') }}"><td>{{ item.name }}</td><td>{{ '%.2f' | format(item.price) }}</td></tr>
{%- endfor %}
</table>
<p>Total: {{ items | sum(attribute='price') | round(2) }}</p>
{% endblock %}""",
}
env = Environment(loader=DictLoader(templates), autoescape=select_autoescape())
items = [
    {"name": "Tea & biscuits", "price": 4.5},
    {"name": "<b>Bold</b> coffee", "price": 3.25},
    {"name": "Free sample", "price": 0},
]
html = env.get_template("report.html").render(title="Price list", day=date(2025, 7, 4), items=items)
with open("report.html", "w", encoding="utf-8") as f:
    f.write(html)

soup = BeautifulSoup(html, "html.parser")
print("Title:", soup.title.string)
print("Rows:", [[td.get_text() for td in tr.find_all("td")] for tr in soup.select("tr.odd, tr.even")])
print("Escaped:", "&lt;b&gt;" in html and soup.find("b") is None)
print(soup.find_all("p")[-1].text)
