from ortools.sat.python import cp_model


class Counter(cp_model.CpSolverSolutionCallback):
    def __init__(self, queens):
        super().__init__()
        self.queens = queens
        self.solutions = []

    def on_solution_callback(self):
        self.solutions.append([self.value(q) for q in self.queens])


def solve(n):
    model = cp_model.CpModel()
    queens = [model.new_int_var(0, n - 1, f"q{i}") for i in range(n)]
    model.add_all_different(queens)
    model.add_all_different([queens[i] + i for i in range(n)])
    model.add_all_different([queens[i] - i for i in range(n)])
    solver = cp_model.CpSolver()
    solver.parameters.enumerate_all_solutions = True
    counter = Counter(queens)
    status = solver.solve(model, counter)
    return solver.status_name(status), counter.solutions


for n in (4, 6, 8):
    status, solutions = solve(n)
    print(f"{n} queens: {len(solutions)} solutions ({status})")

board = solutions[0]
for row in range(8):
    print(" ".join("Q" if board[col] == row else "." for col in range(8)))
