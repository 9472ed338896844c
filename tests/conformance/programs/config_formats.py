import configparser
import io
import json
import tarfile
import tomllib
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path
import xmltodict
import yaml
from lxml import etree

config = yaml.safe_load(Path("deploy.yaml").read_text())
print("Services:", [s["name"] for s in config["services"]])
print("Merged default:", config["services"][1]["restart"])
total = sum(s["replicas"] for s in config["services"])
print("Replicas:", total)

# YAML -> XML
root = ET.Element("services")
for service in config["services"]:
    node = ET.SubElement(root, "service", name=service["name"])
    ET.SubElement(node, "replicas").text = str(service["replicas"])
ET.indent(root)
ET.ElementTree(root).write("services.xml", encoding="utf-8", xml_declaration=True)

# XML: XPath and as a dict
tree = etree.parse("services.xml")
print("Replicas by XPath:", int(tree.xpath("sum(//replicas)")))
print("As JSON:", json.dumps(xmltodict.parse(Path("services.xml").read_text())["services"]["service"][0]))

# INI and TOML
ini = configparser.ConfigParser()
ini.read_string("[db]\nhost = localhost\nport = 5432\n")
print("Port:", ini.getint("db", "port"))
print("TOML:", tomllib.loads('[tool]\nname = "x"\nversions = [1, 2]')["tool"])

# Archives
with zipfile.ZipFile("bundle.zip", "w", zipfile.ZIP_DEFLATED) as z:
    z.write("deploy.yaml")
    z.write("services.xml", "out/services.xml")
    z.writestr("README.txt", "Generated\n")
with tarfile.open("bundle.tar.gz", "w:gz") as t:
    t.add("services.xml")
    data = b"hello"
    member = tarfile.TarInfo("notes/hello.txt")
    member.size = len(data)
    t.addfile(member, io.BytesIO(data))
with zipfile.ZipFile("bundle.zip") as z:
    print("Zip is fine:", z.testzip() is None, sorted(z.namelist()))
with tarfile.open("bundle.tar.gz") as t:
    print("Tar:", t.getnames())
