set -e
rm -rf project && mkdir project && cd project
git init -q -b main
git config user.email "dev@example.com"
git config user.name "Dev"
printf 'def add(a, b):\n    return a + b\n' > calc.py
git add calc.py
git commit -q -m "Add calculator"
git checkout -q -b feature
cat >> calc.py <<'EOF'


def mul(a, b):
    return a * b
EOF
git commit -q -am "Add multiplication"
git checkout -q main
echo "# Calculator" > README.md
git add README.md
git commit -q -m "Add readme"
git merge -q --no-edit feature
git tag v1.0
git log --oneline --format='%s' | sort
echo "commits: $(git rev-list --count HEAD)"
git diff --stat HEAD~1 HEAD | tail -1
git bundle create -q ../project.bundle --all
cd .. && git clone -q -b main project.bundle copy && python3 -c "import sys; sys.path.insert(0, 'copy'); import calc; print('6 * 7 =', calc.mul(6, 7))"
