import pandas as pd

users = pd.DataFrame(
    {
        "user": ["ana", "ben", "cem", "dia"],
        "signup": ["2025-01-10", "2025-01-28", "2025-02-03", "2025-02-20"],
        "spent": ["12.50", "7.25", "n/a", "30.00"],
    }
)
print("Computing cohorts...")
users["month"] = users["signup"].dt.to_period("M")
cohorts = users.groupby("month")["spent"].sum()
print(cohorts)
