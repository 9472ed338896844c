import json
import os
import subprocess
import imageio.v2 as imageio
import numpy as np

# Make a 2 second clip: a white square that moves over a blue background
fps, frames = 15, 30
with imageio.get_writer("clip.mp4", fps=fps, macro_block_size=16) as writer:
    for i in range(frames):
        frame = np.zeros((240, 320, 3), dtype=np.uint8)
        frame[:, :, 2] = 120
        frame[90:150, 8 * i : 8 * i + 60] = 255
        writer.append_data(frame)
print("Made clip.mp4,", os.path.getsize("clip.mp4"), "bytes")

# Re-encode it: half the size, with a silent sound track
subprocess.run(
    ["ffmpeg", "-y", "-loglevel", "error", "-i", "clip.mp4", "-f", "lavfi", "-i", "anullsrc=r=44100:cl=stereo",
     "-vf", "scale=160:120", "-c:v", "libx264", "-preset", "veryfast", "-crf", "28", "-c:a", "aac", "-shortest", "small.mp4"],
    check=True,
)


def probe(path):
    out = subprocess.run(
        ["ffprobe", "-v", "error", "-show_streams", "-show_format", "-count_frames", "-of", "json", path],
        capture_output=True, text=True, check=True,
    ).stdout
    return json.loads(out)


info = probe("small.mp4")
for stream in info["streams"]:
    if stream["codec_type"] == "video":
        print(f"Video: {stream['codec_name']} {stream['width']}x{stream['height']}, {stream['nb_read_frames']} frames")
    else:
        print(f"Audio: {stream['codec_name']} {stream['sample_rate']} Hz")
print(f"Duration: {float(info['format']['duration']):.1f} s")

# One frame as a picture
subprocess.run("ffmpeg -y -loglevel error -ss 1 -i small.mp4 -frames:v 1 frame.png", shell=True, check=True)
