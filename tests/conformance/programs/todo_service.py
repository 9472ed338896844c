import threading
import requests
from flask import Flask, jsonify, request
from werkzeug.serving import make_server

app = Flask(__name__)
todos = {}


@app.post("/todos")
def add():
    todo = {"id": len(todos) + 1, "title": request.json["title"], "done": False}
    todos[todo["id"]] = todo
    return jsonify(todo), 201


@app.patch("/todos/<int:todo_id>")
def change(todo_id):
    if todo_id not in todos:
        return jsonify(error="not found"), 404
    todos[todo_id].update(request.json)
    return jsonify(todos[todo_id])


@app.get("/todos")
def listing():
    return jsonify([t for t in todos.values() if not t["done"]])


server = make_server("127.0.0.1", 0, app, threaded=True)
thread = threading.Thread(target=server.serve_forever, daemon=True)
thread.start()
base = f"http://127.0.0.1:{server.server_port}"

for title in ("write code", "test it"):
    r = requests.post(f"{base}/todos", json={"title": title}, timeout=5)
    print(r.status_code, r.json())
print("Patch:", requests.patch(f"{base}/todos/1", json={"done": True}, timeout=5).json()["done"])
print("Missing:", requests.patch(f"{base}/todos/9", json={}, timeout=5).status_code)
print("Open:", [t["title"] for t in requests.get(f"{base}/todos", timeout=5).json()])
server.shutdown()
thread.join(5)
print("Stopped:", not thread.is_alive())
