import numpy as np
import pandas as pd
from skimage import filters, measure, morphology, segmentation

# Synthetic microscopy image: 12 cells of radius 9 on a noisy background
rng = np.random.default_rng(7)
image = rng.normal(0.1, 0.02, (240, 320))
yy, xx = np.mgrid[:240, :320]
for row in range(3):
    for col in range(4):
        cy, cx = 40 + 80 * row, 40 + 80 * col
        image[(yy - cy) ** 2 + (xx - cx) ** 2 <= 81] += 0.6

smooth = filters.gaussian(image, sigma=1)
threshold = filters.threshold_otsu(smooth)
binary = morphology.opening(smooth > threshold, morphology.disk(2))
labels = measure.label(segmentation.clear_border(binary))
props = pd.DataFrame(measure.regionprops_table(labels, image, properties=("label", "area", "centroid", "eccentricity")))
print(props.round(2).to_string(index=False))
print(f"Cells: {labels.max()}")
print(f"Mean area: {props['area'].mean():.1f}")
print(f"Most elongated: {props['eccentricity'].max():.3f}")
