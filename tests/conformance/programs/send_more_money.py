from z3 import Distinct, Int, Or, Solver, sat

letters = {c: Int(c) for c in "SENDMORY"}
s = Solver()
for v in letters.values():
    s.add(v >= 0, v <= 9)
s.add(Distinct(*letters.values()))
s.add(letters["S"] > 0, letters["M"] > 0)


def number(word):
    total = 0
    for c in word:
        total = total * 10 + letters[c]
    return total


s.add(number("SEND") + number("MORE") == number("MONEY"))
assert s.check() == sat
m = s.model()
value = {c: m[v].as_long() for c, v in letters.items()}
for word in ("SEND", "MORE", "MONEY"):
    print(word, "=", "".join(str(value[c]) for c in word))

# Is the solution unique?
s.add(Or([v != m[v] for v in letters.values()]))
print("Another solution:", s.check())
