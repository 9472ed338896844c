from openpyxl import Workbook, load_workbook
from openpyxl.chart import BarChart, Reference
from openpyxl.styles import Alignment, Font, PatternFill
from openpyxl.utils import get_column_letter
import pandas as pd

expenses = [
    ("Rent", 1200, 1200),
    ("Groceries", 450, 512.35),
    ("Transport", 120, 98.5),
    ("Utilities", 180, 201.15),
    ("Leisure", 200, 260),
]

wb = Workbook()
ws = wb.active
ws.title = "Budget"
ws.append(["Category", "Planned", "Actual", "Difference"])
for cell in ws[1]:
    cell.font = Font(bold=True, color="FFFFFF")
    cell.fill = PatternFill("solid", fgColor="4472C4")
    cell.alignment = Alignment(horizontal="center")

for i, (name, planned, actual) in enumerate(expenses, start=2):
    ws.append([name, planned, actual, f"=C{i}-B{i}"])

last = len(expenses) + 1
ws.append(["Total", f"=SUM(B2:B{last})", f"=SUM(C2:C{last})", f"=SUM(D2:D{last})"])
for col in range(1, 5):
    ws.column_dimensions[get_column_letter(col)].width = 16

chart = BarChart()
chart.title = "Planned vs Actual"
chart.add_data(Reference(ws, min_col=2, max_col=3, min_row=1, max_row=last), titles_from_data=True)
chart.set_categories(Reference(ws, min_col=1, min_row=2, max_row=last))
ws.add_chart(chart, "F2")
wb.save("budget.xlsx")
print("Saved budget.xlsx")

# Read it back to verify
check = load_workbook("budget.xlsx")["Budget"]
print("Formula in B7:", check["B7"].value)
print("Formula in D3:", check["D3"].value)
print("Charts:", len(check._charts))

df = pd.read_excel("budget.xlsx", nrows=len(expenses))
df["Difference"] = df["Actual"] - df["Planned"]
print(df.to_string(index=False))
print(f"Planned total: {df['Planned'].sum()}")
print(f"Actual total: {df['Actual'].sum():.2f}")
print(f"Over budget: {df.loc[df['Difference'].idxmax(), 'Category']}")
