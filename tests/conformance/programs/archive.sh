set -e
mkdir -p site/css site/img
for i in $(seq 1 20); do echo "<p>page $i</p>" > "site/page$i.html"; done
echo "body { color: black }" > site/css/main.css
head -c 300000 /dev/urandom > site/img/noise.bin
tar czf site.tar.gz site
zip -q -r site.zip site
echo "Files in tar: $(tar tzf site.tar.gz | grep -vc '/$')"
echo "Files in zip: $(unzip -l site.zip | grep -c -E 'html|css$|bin')"
mkdir -p from_tar from_zip
tar xzf site.tar.gz -C from_tar
unzip -q -o site.zip -d from_zip
diff -r from_tar from_zip && diff -r site from_tar/site && echo "Archives agree"
split -b 100000 site.tar.gz part_
cat part_* | sha256sum | cut -d' ' -f1 > joined.sha
sha256sum site.tar.gz | cut -d' ' -f1 | cmp - joined.sha && echo "Parts join to the same file"
find site -name '*.html' -print0 | xargs -0 grep -l "page 1[0-9]" | wc -l
