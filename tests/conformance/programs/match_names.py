import difflib
import unicodedata
import pandas as pd

crm = ["Müller Maschinenbau GmbH", "Acme Corporation", "Globex International", "Initech LLC", "Société Générale"]
invoices = ["ACME Corp.", "Mueller Maschinenbau", "Globex Intl", "Initech", "Societe Generale SA", "Umbrella Inc"]


def normalise(name):
    name = name.lower().replace("ü", "ue").replace("ß", "ss")
    name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    for suffix in (" gmbh", " corporation", " corp.", " llc", " inc", " sa", " international", " intl"):
        name = name.removesuffix(suffix)
    return name.strip()


lookup = {normalise(name): name for name in crm}
rows = []
for invoice in invoices:
    match = difflib.get_close_matches(normalise(invoice), lookup, n=1, cutoff=0.8)
    best = lookup[match[0]] if match else None
    score = difflib.SequenceMatcher(None, normalise(invoice), normalise(best)).ratio() if best else 0.0
    rows.append({"invoice": invoice, "match": best, "score": round(score, 2)})

result = pd.DataFrame(rows)
result.to_csv("matches.csv", index=False)
print(f"Matched {result['match'].notna().sum()} of {len(result)}")
result
