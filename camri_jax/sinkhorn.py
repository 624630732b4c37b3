"""stub"""
def sinkhorn(*a, **k):
    raise NotImplementedError
