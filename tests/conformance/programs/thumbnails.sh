set -e
ffmpeg -loglevel error -y -f lavfi -i testsrc=duration=3:size=320x240:rate=10 -c:v libx264 -pix_fmt yuv420p source.mp4
ffmpeg -loglevel error -y -i source.mp4 -vf "fps=1,scale=80:-1" thumb_%d.png
ls thumb_*.png | wc -l
convert thumb_1.png thumb_2.png thumb_3.png +append sheet.png
identify -format 'sheet: %wx%h %m\n' sheet.png
ffmpeg -loglevel error -y -ss 1 -t 1 -i source.mp4 -c:v libvpx -b:v 200k cut.webm
ffprobe -v error -show_entries stream=codec_name,width,height -of csv=p=0 cut.webm
