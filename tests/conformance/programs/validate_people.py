import json
from jsonschema import Draft202012Validator, FormatChecker

schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "email": {"type": "string", "format": "email"},
        "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        "address": {"$ref": "#/$defs/address"},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
    "$defs": {
        "address": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}},
            "required": ["city"],
        }
    },
}
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema, format_checker=FormatChecker())

with open("people.json", encoding="utf-8") as f:
    people = json.load(f)

valid = 0
for index, person in enumerate(people):
    errors = sorted(validator.iter_errors(person), key=lambda e: list(e.path))
    if not errors:
        valid += 1
        print(f"✅ Record {index}: OK")
    for error in errors:
        where = "/".join(str(part) for part in error.path) or "(root)"
        print(f"❌ Record {index}: {where}: {error.validator}")
print(f"Valid records: {valid} of {len(people)}")
