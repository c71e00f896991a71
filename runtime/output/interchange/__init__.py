"""Results as other programs read them: tables, polygons, COCO, GeoJSON, LabelMe, CVAT, supervision."""
