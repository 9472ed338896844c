from docx import Document
from docx.enum.text import WD_ALIGN_PARAGRAPH
from docx.shared import Inches, Pt, RGBColor
import docx2txt

doc = Document()
title = doc.add_heading("Meeting Minutes", level=0)
title.alignment = WD_ALIGN_PARAGRAPH.CENTER

p = doc.add_paragraph("Date: ")
run = p.add_run("14 March 2025")
run.bold = True
run.font.size = Pt(12)
run.font.color.rgb = RGBColor(0x1F, 0x4E, 0x79)

doc.add_heading("Attendees", level=1)
for person in ["Ana López", "Jürgen Groß", "佐藤 花子"]:
    doc.add_paragraph(person, style="List Bullet")

doc.add_heading("Action items", level=1)
table = doc.add_table(rows=1, cols=3)
table.style = "Light Grid Accent 1"
for cell, text in zip(table.rows[0].cells, ["Owner", "Task", "Due"]):
    cell.text = text
for owner, task, due in [("Ana", "Draft budget", "21 March"), ("Jürgen", "Book venue", "28 March")]:
    cells = table.add_row().cells
    cells[0].text, cells[1].text, cells[2].text = owner, task, due
table.columns[1].width = Inches(3)
doc.save("minutes.docx")

# Verify by reading the file back
again = Document("minutes.docx")
print("Headings:", [p.text for p in again.paragraphs if p.style.name.startswith(("Heading", "Title"))])
print("Attendees:", [p.text for p in again.paragraphs if p.style.name == "List Bullet"])
print("Rows:", [[c.text for c in row.cells] for row in again.tables[0].rows])
words = docx2txt.process("minutes.docx").split()
print("Word count:", len(words))
