"""What lies on a disk: volumes, annotations and the store itself, each behind one small contract."""
