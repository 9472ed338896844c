from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps
import numpy as np

# Create a gradient image
width, height = 800, 600
x = np.linspace(0, 255, width, dtype=np.uint8)
y = np.linspace(0, 255, height, dtype=np.uint8)
pixels = np.dstack([np.tile(x, (height, 1)), np.tile(y[:, None], (1, width)), np.full((height, width), 128, np.uint8)])
img = Image.fromarray(pixels)

# Annotate
draw = ImageDraw.Draw(img)
draw.ellipse((300, 200, 500, 400), fill=(255, 255, 0), outline="black", width=5)
draw.text((20, 20), "Hello, PIL!", fill="white", font=ImageFont.load_default(size=36))
img.save("original.png")
print("Original:", img.size, img.mode)
print("Centre pixel:", img.getpixel((400, 300)))

# Process
gray = ImageOps.grayscale(img)
blurred = img.filter(ImageFilter.GaussianBlur(8))
rotated = img.rotate(90, expand=True)
bright = ImageEnhance.Brightness(img).enhance(1.5)
print("Gray centre:", gray.getpixel((400, 300)))
print("Rotated:", rotated.size)
print("Mean brightness:", round(np.asarray(img).mean(), 1), "->", round(np.asarray(bright).mean(), 1))
blurred.save("blurred.jpg", quality=85)

thumb = img.copy()
thumb.thumbnail((200, 200))
print("Thumbnail:", thumb.size)
thumb
