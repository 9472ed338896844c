import cv2
import numpy as np

# Draw a test image with known shapes
canvas = np.zeros((400, 600, 3), dtype=np.uint8)
for center in [(80, 80), (220, 90), (380, 80), (520, 90)]:
    cv2.circle(canvas, center, 40, (0, 0, 255), -1)
for x, y in [(60, 230), (260, 240), (450, 230)]:
    cv2.rectangle(canvas, (x, y), (x + 90, y + 70), (0, 255, 0), -1)
triangle = np.array([[300, 390], [340, 330], [380, 390]])
cv2.fillPoly(canvas, [triangle], (255, 0, 0))

# Detect them
gray = cv2.cvtColor(canvas, cv2.COLOR_BGR2GRAY)
_, mask = cv2.threshold(gray, 10, 255, cv2.THRESH_BINARY)
contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)

counts = {"circle": 0, "rectangle": 0, "triangle": 0}
for contour in contours:
    corners = cv2.approxPolyDP(contour, 0.03 * cv2.arcLength(contour, True), True)
    if len(corners) == 3:
        kind = "triangle"
    elif len(corners) == 4:
        kind = "rectangle"
    else:
        kind = "circle"
    counts[kind] += 1
    x, y, w, h = cv2.boundingRect(contour)
    cv2.putText(canvas, kind, (x, y - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1)

print("Shapes found:", counts)
edges = cv2.Canny(gray, 100, 200)
print("Edge pixels:", int((edges > 0).sum()) > 500)
cv2.imwrite("annotated.png", canvas)
