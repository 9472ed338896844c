import numpy as np
from bokeh.io import output_file, save
from bokeh.models import ColumnDataSource, HoverTool
from bokeh.plotting import figure, show

rng = np.random.default_rng(3)
source = ColumnDataSource(dict(height=rng.normal(170, 10, 100), weight=rng.normal(70, 12, 100)))
p = figure(title="Height and weight", width=600, height=400, x_axis_label="cm", y_axis_label="kg")
p.scatter("height", "weight", source=source, size=8, alpha=0.6)
p.add_tools(HoverTool(tooltips=[("height", "@height{0.0}"), ("weight", "@weight{0.0}")]))

output_file("scatter.html", title="Height and weight")
save(p)
print("Saved scatter.html")
show(p)
