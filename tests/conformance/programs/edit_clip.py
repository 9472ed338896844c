import numpy as np
from moviepy import ColorClip, VideoClip, VideoFileClip, concatenate_videoclips

red = ColorClip(size=(128, 96), color=(255, 0, 0), duration=1)
green = ColorClip(size=(128, 96), color=(0, 255, 0), duration=1)


def fade(t):
    return np.full((96, 128, 3), int(255 * t), dtype=np.uint8)


video = concatenate_videoclips([red, green, VideoClip(fade, duration=1)])
video.write_videofile("colours.mp4", fps=12, codec="libx264", audio=False, logger=None)

with VideoFileClip("colours.mp4") as clip:
    print("Duration:", clip.duration, "size:", clip.size, "fps:", clip.fps)
    for t in (0.5, 1.5):
        print(f"Colour at {t} s:", [int(c) for c in clip.get_frame(t)[48, 64]])
    short = clip.subclipped(0, 1.5).resized(width=64)
    short.write_gif("short.gif", fps=6, logger=None)
    print("GIF size:", short.size)
