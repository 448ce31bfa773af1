def one_stage_parts(cfg):
    raise NotImplementedError
