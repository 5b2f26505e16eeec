"""Makes schema.json of a checkout of ocsf/ocsf-schema: the classes that Holdfast writes, and the objects in them.

    python3 compile.py CHECKOUT > schema.json

Only what can be checked is kept: names, types, requirements, values of enumerations, constraints; no descriptions.
An attribute of a profile is optional: a profile counts only where an event names it.
"""

import json
import pathlib
import sys

CLASSES = {"base_event", "process_activity", "detection_finding", "incident_finding", "account_change",
           "authentication", "user_access", "network_activity", "api_activity", "datastore_activity"}
root = pathlib.Path(sys.argv[1])


def load(path):
    return json.loads(path.read_text())


dictionary = load(root / "dictionary.json")
events = {}
for path in sorted((root / "events").rglob("*.json")):
    event = load(path)
    events[event.get("name") or path.stem] = event
objects = {load(path)["name"]: load(path) for path in sorted((root / "objects").glob("*.json"))}
categories = load(root / "categories.json")["attributes"]


def own(entry):
    """Its attributes with those of what it includes."""
    found = {}
    attributes = dict(entry.get("attributes", {}))
    includes = attributes.pop("$include", [])
    for include in [includes] if isinstance(includes, str) else includes:
        for name, attribute in own(load(root / include)).items():
            found[name] = {**attribute, "requirement": "optional"} if "profiles/" in include else attribute
    for name, attribute in attributes.items():
        found[name] = {**found.get(name, {}), **attribute}
    return found


def whole(entry, all_entries):
    """Its attributes and constraints with those of what it extends."""
    attributes, constraints = {}, {}
    if "extends" in entry:
        attributes, constraints = whole(all_entries[entry["extends"]], all_entries)
    attributes = {name: dict(attribute) for name, attribute in attributes.items()}
    for name, attribute in own(entry).items():
        merged = {**attributes.get(name, {}), **attribute}
        if "enum" in attribute and "enum" in attributes.get(name, {}):
            merged["enum"] = {**attributes[name]["enum"], **attribute["enum"]}
        attributes[name] = merged
    return attributes, {**constraints, **entry.get("constraints", {})}


needed = []


def compiled(entry, all_entries):
    attributes, constraints = whole(entry, all_entries)
    made = {}
    for name, attribute in sorted(attributes.items()):
        known = dictionary["attributes"].get(name, {})
        kind = attribute.get("type") or known["type"]
        kind = attribute.get("object_type") or known.get("object_type") or kind
        kind = known.get("object_type") and f"object:{known['object_type']}" or kind
        if not kind.startswith("object:") and kind in objects:
            kind = f"object:{kind}"
        if kind.startswith("object:"):
            needed.append(kind.removeprefix("object:"))
        short = {"type": kind}
        if attribute.get("is_array", known.get("is_array", False)):
            short["array"] = True
        if attribute.get("requirement") == "required":
            short["required"] = True
        enum = {**known.get("enum", {}), **attribute.get("enum", {})}
        if enum:
            short["enum"] = sorted(enum, key=lambda value: (len(value), value))
        made[name] = short
    return {"attributes": made, **({"constraints": constraints} if constraints else {})}


classes = {}
for name in sorted(CLASSES):
    event = events[name]
    at = event
    while "category" not in at and "extends" in at:
        at = events[at["extends"]]
    category = categories.get(at.get("category", ""), {}).get("uid", 0)
    uid = category * 1000 + event.get("uid", 0)
    made = compiled(event, events)
    made["attributes"]["class_uid"]["enum"] = [str(uid)]
    made["attributes"]["category_uid"]["enum"] = [str(category)]
    activities = made["attributes"]["activity_id"]["enum"]
    made["attributes"]["type_uid"]["enum"] = [str(uid * 100 + int(value)) for value in activities]
    classes[str(uid)] = {"name": name, **made}
of_objects = {}
while needed:
    name = needed.pop()
    if name not in of_objects:
        of_objects[name] = {}
        of_objects[name] = compiled(objects[name], objects)
# An observable's kind is the number that types, attributes and objects have as one.
kinds = {"0", "99"}
for entry in [*dictionary["types"]["attributes"].values(), *dictionary["attributes"].values(), *objects.values()]:
    kinds |= {str(entry["observable"])} if "observable" in entry else set()
of_objects["observable"]["attributes"]["type_id"]["enum"] = sorted(kinds, key=lambda value: (len(value), value))
base = {name: kind.get("type", name) for name, kind in dictionary["types"]["attributes"].items()}
version = load(root / "version.json")["version"]
json.dump({"version": version, "types": base, "classes": classes, "objects": dict(sorted(of_objects.items()))},
          sys.stdout, separators=(",", ":"), sort_keys=True)
print()
