"""Integer arithmetic, exact and wrapping as HLO has it, on engines that compute in fp32."""
