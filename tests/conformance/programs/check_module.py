test_code = '''
import unittest
from text_tools import roman, slugify

class TextTools(unittest.TestCase):
    def test_slugify(self):
        self.assertEqual(slugify("Crème Brûlée, please!"), "creme-brulee-please")

    def test_roman(self):
        self.assertEqual([roman(n) for n in (1, 4, 9, 14)], ["I", "IV", "IX", "XIV"])

    def test_roman_of_forty(self):
        self.assertEqual(roman(40), "XL")
'''
with open("test_text_tools.py", "w") as f:
    f.write(test_code)

!python -m unittest -v test_text_tools 2>&1 | tail -20
