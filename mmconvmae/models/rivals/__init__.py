from .mimdet import MIMDet

__all__ = ['MIMDet']
