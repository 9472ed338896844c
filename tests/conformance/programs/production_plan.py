import json
import pulp

with open("plan.json") as f:
    plan = json.load(f)

prob = pulp.LpProblem("production", pulp.LpMaximize)
make = {p: pulp.LpVariable(p, lowBound=0, upBound=spec["max"], cat="Integer") for p, spec in plan["products"].items()}

prob += pulp.lpSum(plan["products"][p]["profit"] * make[p] for p in make), "profit"
for resource, available in plan["available"].items():
    prob += pulp.lpSum(plan["products"][p][resource] * make[p] for p in make) <= available, resource

prob.solve(pulp.PULP_CBC_CMD(msg=False))
print("Status:", pulp.LpStatus[prob.status])
for p, variable in make.items():
    print(f"Make {p}: {int(variable.value())}")
print(f"Maximum profit: {pulp.value(prob.objective):.0f}")
