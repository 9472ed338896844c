import csv
import matplotlib.pyplot as plt
import networkx as nx

G = nx.Graph()
with open("roads.csv", newline="") as f:
    for row in csv.DictReader(f):
        G.add_edge(row["from"], row["to"], weight=float(row["km"]))

print(f"{G.number_of_nodes()} towns, {G.number_of_edges()} roads, connected: {nx.is_connected(G)}")
path = nx.shortest_path(G, "T0", "T19", weight="weight")
print("Shortest route:", " -> ".join(path))
print(f"Distance: {nx.shortest_path_length(G, 'T0', 'T19', weight='weight'):.1f} km")

tree = nx.minimum_spanning_tree(G)
print(f"Spanning tree: {tree.size(weight='weight'):.1f} km")
central = nx.betweenness_centrality(G, weight="weight")
print("Most central:", max(central, key=central.get))

plt.figure(figsize=(7, 7))
positions = nx.spring_layout(G, seed=1)
nx.draw(G, positions, with_labels=True, node_color="lightblue", font_size=8)
nx.draw_networkx_edges(G, positions, edgelist=list(zip(path, path[1:])), edge_color="red", width=3)
plt.title("Road network")
plt.show()
