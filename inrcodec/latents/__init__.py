"""The codec of latent fields: grids of latents per patch, of which the integer symbols are coded."""
