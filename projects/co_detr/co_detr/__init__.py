"""Co-Deformable-DETR (Zong et al., ICCV 2023) with any criterion; with BRS it is BRS-DETR."""
