import string
from collections import Counter
import nltk
from nltk import FreqDist, ngrams
from nltk.metrics import edit_distance
from nltk.stem import PorterStemmer, SnowballStemmer
from nltk.tokenize import RegexpTokenizer, TreebankWordTokenizer

with open("text.txt", encoding="utf-8") as f:
    text = f.read()

words = RegexpTokenizer(r"[a-z']+").tokenize(text.lower())
freq = FreqDist(words)
print("Words:", len(words), "distinct:", len(freq))
print("Most common:", freq.most_common(3))
print("Bigram:", Counter(ngrams(words, 2)).most_common(1)[0])
stemmer = PorterStemmer()
print("Stems:", [stemmer.stem(w) for w in ("running", "flies", "happily", "generously")])
print("German:", SnowballStemmer("german").stem("Häuser"))
print("Distance:", edit_distance("intention", "execution"))
print("Tokens:", TreebankWordTokenizer().tokenize("They'll save $3.88, won't they?"))

# The corpora are not installed: say so and go on
try:
    nltk.data.find("corpora/stopwords")
    print("Stop words available")
except LookupError:
    print("Stop words not available, using a short list")
    stop = {"the", "a", "of", "and", "to", "in", "it", "was"}
    content = [w for w in words if w not in stop and w not in string.punctuation]
    print("Content words:", len(content))
