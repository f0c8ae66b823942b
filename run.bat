@echo off
rem The web interface on http://127.0.0.1:7860; sets up .venv on the first start: run.bat
setlocal
call "%~dp0tools\setup.bat" requirements.txt || exit /b 1
cd /d "%~dp0"
"%~dp0.venv\Scripts\python.exe" -m ui.app %*
exit /b %errorlevel%
