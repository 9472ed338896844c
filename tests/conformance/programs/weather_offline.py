import socket
import httpx
import requests
import urllib.request

urls = ["https://api.open-meteo.com/v1/forecast?latitude=52&longitude=13", "http://93.184.216.34/"]
for url in urls:
    try:
        response = requests.get(url, timeout=10)
        print("Status:", response.status_code)
    except requests.exceptions.ConnectionError as e:
        print("requests could not connect")
    try:
        httpx.get(url, timeout=10)
    except httpx.ConnectError:
        print("httpx could not connect")
try:
    socket.getaddrinfo("example.com", 443)
except socket.gaierror as e:
    print("No DNS")
urllib.request.urlopen(urls[0], timeout=10)
