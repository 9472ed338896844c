import pandas as pd
import statsmodels.api as sm
import statsmodels.formula.api as smf

df = pd.read_csv("experiment.csv")
print(df.describe().round(3))

# Ordinary least squares
X = sm.add_constant(df[["dose", "temperature"]])
model = sm.OLS(df["response"], X).fit()
print(model.summary())

# The same with a formula
formula = smf.ols("response ~ dose + temperature", data=df).fit()
assert (abs(formula.params.values - model.params.values) < 1e-8).all()

for name, value in model.params.items():
    print(f"Coefficient {name}: {value:.6f}")
print(f"R-squared: {model.rsquared:.6f}")
print(f"p-value of dose: {model.pvalues['dose']:.3g}")
