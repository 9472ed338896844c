import cv2
import qrcode

text = "https://example.org/ticket?id=48213&name=José"
qr = qrcode.QRCode(version=None, error_correction=qrcode.constants.ERROR_CORRECT_M, box_size=8, border=4)
qr.add_data(text)
qr.make(fit=True)
qr.make_image(fill_color="black", back_color="white").save("ticket.png")
print("Version:", qr.version, "modules:", qr.modules_count)

decoded, points, _ = cv2.QRCodeDetector().detectAndDecode(cv2.imread("ticket.png"))
print("Decoded:", decoded)
print("Same:", decoded == text)
