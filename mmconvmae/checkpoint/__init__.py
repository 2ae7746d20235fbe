from .official import check_strict, from_official, infer_model, read_state_dict, to_official, write_checkpoint

__all__ = ['check_strict', 'from_official', 'infer_model', 'read_state_dict', 'to_official', 'write_checkpoint']
