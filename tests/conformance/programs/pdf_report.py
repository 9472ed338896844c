import matplotlib.pyplot as plt
import pdfplumber
from pdf2image import convert_from_path
from pypdf import PdfReader
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import Image, PageBreak, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

quarters = {"Q1": 125000, "Q2": 143500, "Q3": 138200, "Q4": 171300}

# Chart for the report
plt.figure(figsize=(6, 3))
plt.bar(list(quarters), list(quarters.values()), color="seagreen")
plt.title("Revenue per quarter")
plt.tight_layout()
plt.savefig("chart.png", dpi=120)
plt.close()

# Build the PDF
styles = getSampleStyleSheet()
story = [
    Paragraph("Annual Report 2025", styles["Title"]),
    Paragraph("This report was generated automatically. Revenue grew in three of four quarters.", styles["BodyText"]),
    Spacer(1, 12),
]
rows = [["Quarter", "Revenue"]] + [[name, f"{value:,}"] for name, value in quarters.items()]
rows.append(["Total", f"{sum(quarters.values()):,}"])
table = Table(rows, colWidths=[120, 120])
table.setStyle(
    TableStyle(
        [
            ("BACKGROUND", (0, 0), (-1, 0), colors.lightblue),
            ("GRID", (0, 0), (-1, -1), 0.5, colors.black),
            ("ALIGN", (1, 1), (1, -1), "RIGHT"),
        ]
    )
)
story += [table, PageBreak(), Paragraph("Chart", styles["Heading1"]), Image("chart.png", width=400, height=200)]


def footer(canvas, doc):
    canvas.saveState()
    canvas.setFont("Helvetica", 9)
    canvas.drawString(50, 30, f"Page {doc.page}")
    canvas.restoreState()


SimpleDocTemplate("report.pdf", pagesize=A4).build(story, onFirstPage=footer, onLaterPages=footer)

# Extract it again
reader = PdfReader("report.pdf")
print("Pages:", len(reader.pages))
print("Lines:", [line.strip() for line in reader.pages[0].extract_text().splitlines() if "Report" in line])
print("Images on page 2:", len(reader.pages[1].images))
with pdfplumber.open("report.pdf") as pdf:
    extracted = pdf.pages[0].extract_table()
    print("Table:", extracted)
    print("Footer:", [line for line in pdf.pages[1].extract_text().splitlines() if line.startswith("Page")])
total = sum(int(row[1].replace(",", "")) for row in extracted[1:-1])
print("Recomputed total:", total)

# Preview of the first page
convert_from_path("report.pdf", dpi=50)[0]
