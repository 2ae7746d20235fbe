from .files import (
    DamagedCheckpointError,
    config_of,
    find_checkpoints,
    is_state_dict,
    read_checkpoint,
    read_state_dict,
    write_checkpoint,
)
from .loading import check_state_dict, has_former_names, use_todays_backbone_names, use_todays_decoder_names
from .official import (
    check_strict,
    data2vec_from_official,
    from_official,
    infer_model,
    mimdet_from_official,
    to_official,
)

__all__ = [
    'DamagedCheckpointError',
    'check_state_dict',
    'check_strict',
    'config_of',
    'data2vec_from_official',
    'find_checkpoints',
    'from_official',
    'has_former_names',
    'infer_model',
    'is_state_dict',
    'mimdet_from_official',
    'read_checkpoint',
    'read_state_dict',
    'to_official',
    'use_todays_backbone_names',
    'use_todays_decoder_names',
    'write_checkpoint',
]
