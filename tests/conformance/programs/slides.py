from pptx import Presentation
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches, Pt

prs = Presentation()

# Slide 1: title
slide = prs.slides.add_slide(prs.slide_layouts[0])
slide.shapes.title.text = "Quarterly Business Review"
slide.placeholders[1].text = "Q3 2025"

# Slide 2: bullets
slide = prs.slides.add_slide(prs.slide_layouts[1])
slide.shapes.title.text = "Highlights"
frame = slide.placeholders[1].text_frame
frame.text = "Revenue up 12%"
for line in ["Churn down to 2.1%", "Two new markets"]:
    para = frame.add_paragraph()
    para.text = line
    para.level = 1
    para.font.size = Pt(20)

# Slide 3: a native chart
slide = prs.slides.add_slide(prs.slide_layouts[5])
slide.shapes.title.text = "Revenue by month"
data = CategoryChartData()
data.categories = ["Jul", "Aug", "Sep"]
data.add_series("Revenue", (19.2, 21.4, 16.7))
slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, Inches(1), Inches(1.5), Inches(8), Inches(5), data)

prs.save("review.pptx")

again = Presentation("review.pptx")
for number, slide in enumerate(again.slides, start=1):
    print(f"Slide {number}: {slide.shapes.title.text}")
    for shape in slide.shapes:
        if shape.has_chart:
            plot = shape.chart.plots[0]
            print("  chart:", list(plot.categories), list(plot.series[0].values))
        elif shape.has_text_frame and shape != slide.shapes.title:
            print("  text:", [p.text for p in shape.text_frame.paragraphs])
print(f"Slides: {len(again.slides)}")
