"""What a compile decides by flags, target and cost: casts, layouts of operands, placement, stages."""
