"""Defines colours and spacing, without loading anything from the network."""

from __future__ import annotations

from gradio import themes

FONTS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO = ("ui-monospace", "Consolas", "Menlo", "monospace")


def theme() -> themes.Base:
    return themes.Base(
        primary_hue="indigo",
        secondary_hue="indigo",
        neutral_hue="slate",
        radius_size="md",
        spacing_size="sm",
        font=FONTS,
        font_mono=MONO,
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_padding="4px 2px",
        input_border_width="1px",
        input_border_width_dark="1px",
        input_border_color_dark="*neutral_700",
        color_accent="*primary_700",
        checkbox_border_color="*neutral_400",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_title_text_weight="500",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        input_background_fill="white",
        input_background_fill_dark="*neutral_800",
        input_border_color="*neutral_300",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        checkbox_label_text_color="*neutral_800",
        checkbox_label_text_color_dark="*neutral_100",
    )


CSS = """
.dark { --color-accent: var(--primary-300); }
.gradio-container { max-width: min(1560px, 100%) !important; margin: 0 auto !important; padding: 0 !important; }
.gradio-container .main.app { padding: 8px clamp(8px, 2.5vw, 22px) 24px !important; box-sizing: border-box; }
.main.app, .main.app > .wrap, .contain { min-width: 0; }
.gradio-container .grid-container { grid-template-columns: repeat(var(--grid-cols), minmax(0, 1fr)); }
footer { display: none !important; }
#ld-header { align-items: center; gap: 12px; flex-wrap: wrap; }
#ld-header h1 { font-size: 1.15rem; margin: 0; font-weight: 650; letter-spacing: -.01em; }
#ld-header h1 span { color: var(--primary-600); }
.dark #ld-header h1 span { color: var(--primary-300); }
#ld-memory { text-align: right; }
.ld-memory { font-size: .8rem; color: var(--body-text-color-subdued); margin: 0; }
.gradio-container .prose { overflow-wrap: anywhere; }
.ld-message { padding: 9px 12px; border-radius: 8px; font-size: .92rem; line-height: 1.4; }
.ld-error { background: #fef2f2; color: #991b1b; border: 1px solid #fca5a5; }
.dark .ld-error { background: #450a0a; color: #fecaca; border-color: #991b1b; }
.ld-note { background: #eef2ff; color: #3730a3; border: 1px solid #c7d2fe; }
.dark .ld-note { background: #1e1b4b; color: #e0e7ff; border-color: #4338ca; }
.ld-status { font-size: .8rem; color: var(--body-text-color-subdued); margin: 0; line-height: 1.35; }
.ld-stage { display: flex; flex-direction: column; gap: 8px; align-items: stretch; }
.ld-preview { width: 100%; max-height: min(56vh, 512px); object-fit: contain; border-radius: 8px;
  background: var(--background-fill-secondary); image-rendering: auto; }
.ld-track { height: 8px; border-radius: 4px; background: var(--neutral-200); overflow: hidden; }
.dark .ld-track { background: var(--neutral-700); }
.ld-fill { height: 100%; border-radius: 4px; background: var(--primary-500); transition: width .2s linear; }
.ld-unknown { opacity: .55; animation: ld-pulse 1.4s ease-in-out infinite; }
@keyframes ld-pulse { 50% { opacity: .15; } }
@media (prefers-reduced-motion: reduce) { .ld-unknown { animation: none; } .ld-fill { transition: none; } }
.ld-words { margin: 0; font-size: .88rem; font-variant-numeric: tabular-nums; }
.ld-empty { border: 1px dashed var(--border-color-primary); border-radius: 10px; padding: 84px 24px;
  text-align: center; color: var(--body-text-color-subdued); background: var(--ld-card); }
.ld-empty b { display: block; font-size: 1.05rem; color: var(--body-text-color); margin-bottom: 6px; }
#ld-panels:has(#ld-gallery) #ld-first-hint { display: none; }
.ld-facts { display: grid; grid-template-columns: max-content 1fr; gap: 4px 12px; font-size: .88rem; margin: 0; }
.ld-facts dd { margin: 0; }
.ld-facts a { text-decoration: underline; }
.ld-small { flex: 0 0 auto !important; min-width: 60px !important; width: auto !important;
  align-self: flex-end; height: 40px; margin-bottom: 4px; padding: 0 10px !important; }
.ld-generate { min-height: 44px; font-weight: 600; }
.ld-cancel { min-height: 44px; }
.gradio-container .form { border: none !important; background: transparent !important; box-shadow: none !important; }
#ld-message:not(:has(.ld-message)), #ld-compare-message:not(:has(.ld-message)), #ld-stage:not(:has(.ld-stage)),
#ld-stable-fast-status:not(:has(p)), #ld-upload-message:not(:has(.ld-message)) { display: none; }
#ld-speed { align-items: center; gap: 8px; }
#ld-stable-fast { padding-top: 12px; }
#ld-stable-fast label { font-weight: 600; }
.gradio-container .wrap-inner, .gradio-container .wrap-inner .secondary-wrap { min-height: 28px; }
#ld-gallery .grid-wrap, #ld-sheet .grid-wrap { max-height: none; height: auto; }
#ld-gallery .grid-container:not(:has(button:nth-of-type(2))) .thumbnail-item { aspect-ratio: auto; }
#ld-gallery .thumbnail-item, #ld-sheet .thumbnail-item { max-height: 62vh; background: transparent; }
#ld-gallery .thumbnail-item img, #ld-sheet .thumbnail-item img { max-height: 62vh; object-fit: contain; }
#ld-prompt textarea::placeholder { font-size: .86em; }
#ld-form { background: var(--ld-card); border: 1px solid var(--border-color-primary); border-radius: 12px;
  padding: 12px 14px !important; }
.gradio-container { --ld-card: white; }
.dark .gradio-container, .gradio-container.dark { --ld-card: var(--neutral-900); }
.ld-card { border: 1px solid var(--border-color-primary); border-radius: 10px; padding: 10px !important;
  background: var(--block-background-fill); }
.ld-card > .form, .ld-card .block { border: none; box-shadow: none; }
.ld-text textarea { font-size: .8rem !important; font-family: var(--font-mono) !important; }
:focus-visible { outline: 2px solid var(--primary-500) !important; outline-offset: 1px; }
@media (max-width: 640px) { #ld-header > * { flex: 1 1 100% !important; } #ld-memory { text-align: left; }
  .ld-empty { padding: 40px 16px; } }
"""
