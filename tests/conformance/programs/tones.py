import wave
import numpy as np
from IPython.display import Audio, display
from pydub import AudioSegment
from pydub.generators import Sine

rate, seconds = 22050, 1.0
t = np.linspace(0, seconds, int(rate * seconds), endpoint=False)
samples = (0.5 * np.sin(2 * np.pi * 440 * t) * 32767).astype(np.int16)
with wave.open("a4.wav", "wb") as f:
    f.setnchannels(1)
    f.setsampwidth(2)
    f.setframerate(rate)
    f.writeframes(samples.tobytes())

# Mix with pydub
tone = AudioSegment.from_wav("a4.wav")
fifth = Sine(660).to_audio_segment(duration=1000, volume=-6).set_frame_rate(rate)
mix = (tone.overlay(fifth) + tone).fade_in(50).fade_out(200)
mix.export("mix.mp3", format="mp3", bitrate="64k")
again = AudioSegment.from_mp3("mix.mp3")
print(f"Mix: {len(mix)} ms, {mix.channels} channel, {mix.frame_rate} Hz")
print(f"MP3: about {round(len(again) / 1000)} s, loudness {again.dBFS:.0f} dBFS")

# Dominant frequencies
with wave.open("a4.wav") as f:
    data = np.frombuffer(f.readframes(f.getnframes()), dtype=np.int16)
spectrum = np.abs(np.fft.rfft(data))
print(f"Dominant frequency: {np.fft.rfftfreq(data.size, 1 / rate)[spectrum.argmax()]:.0f} Hz")
display(Audio("a4.wav"))
