# The columns were strings: convert them first
users["signup"] = pd.to_datetime(users["signup"])
users["spent"] = pd.to_numeric(users["spent"], errors="coerce").fillna(0)
users["month"] = users["signup"].dt.to_period("M").astype(str)
cohorts = users.groupby("month")["spent"].sum()
print(cohorts.to_dict())
