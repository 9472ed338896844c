import pandas as pd
import plotly.express as px

df = pd.DataFrame({"month": ["Jan", "Feb", "Mar", "Apr"], "north": [120, 135, 128, 160], "south": [90, 99, 121, 118]})
long = df.melt(id_vars="month", var_name="region", value_name="sales")
fig = px.line(long, x="month", y="sales", color="region", markers=True, title="Monthly sales")
fig.update_layout(template="plotly_white")
fig.write_html("chart.html", include_plotlyjs="cdn")
print("Traces:", [trace.name for trace in fig.data])
fig.show()
