import matplotlib.pyplot as plt
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, classification_report, confusion_matrix
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

iris = load_iris()
X_train, X_test, y_train, y_test = train_test_split(
    iris.data, iris.target, test_size=0.3, random_state=42, stratify=iris.target
)
print(f"Training samples: {len(X_train)}, test samples: {len(X_test)}")

model = make_pipeline(StandardScaler(), RandomForestClassifier(n_estimators=50, random_state=42))
model.fit(X_train, y_train)
y_pred = model.predict(X_test)

print(f"Accuracy: {accuracy_score(y_test, y_pred):.4f}")
print(classification_report(y_test, y_pred, target_names=iris.target_names))
cm = confusion_matrix(y_test, y_pred)
print("Confusion matrix:", cm.tolist())

scores = cross_val_score(model, iris.data, iris.target, cv=3)
print(f"Cross-validation: {scores.mean():.3f} +/- {scores.std():.3f}")

importances = dict(zip(iris.feature_names, model[-1].feature_importances_))
print("Most important feature:", max(importances, key=importances.get))

ConfusionMatrixDisplay(cm, display_labels=iris.target_names).plot(cmap="Blues")
plt.title("Iris")
plt.show()
